"""What can be wrong with training data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, and why."""

    file: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.reason}"
