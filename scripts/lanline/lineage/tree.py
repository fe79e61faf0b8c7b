"""The tree of a network's origins, as `lanline.lineage.trace` makes it: to walk, to write as JSON, to verify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lanline.files import sha256_file


@dataclass(frozen=True)
class TracedFile:
    """A file of the tree: where it lies, and the hash that it had when it was recorded, if that is known."""

    path: Path
    sha256: str | None
    shown: str


@dataclass(frozen=True)
class Node:
    """One thing in the tree.

    Attributes:
        kind: network, training run, evaluation, data set, shard, and so on.
        name: which one.
        facts: what is known of it.
        files: what it consists of.
        parts: what it was made from, or with.
    """

    kind: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    files: tuple[TracedFile, ...] = ()
    parts: tuple[Node, ...] = ()

    def to_json(self) -> dict[str, Any]:
        files = [{"path": file.shown, "sha256": file.sha256} for file in self.files]
        parts = [part.to_json() for part in self.parts]
        return {"kind": self.kind, "name": self.name, "facts": self.facts, "files": files, "parts": parts}

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(frozen=True)
class Lineage:
    """The tree of a network or run.

    Attributes:
        tree: its root.
        notes: what could not be found or asked.
        contradictions: records that do not agree with each other.
    """

    tree: Node
    notes: tuple[str, ...]
    contradictions: tuple[str, ...]

    def verify(self) -> list[str]:
        """Hash every file again, and return mismatches with the record, one line each; empty if there are none."""
        return [*self.contradictions, *(problem for node in self.tree.walk() for problem in _changed(node))]

    def without_hash(self) -> list[str]:
        """Files that cannot be verified, because their hash was not recorded."""
        return [file.shown for node in self.tree.walk() for file in node.files if file.sha256 is None]


def _changed(node: Node) -> Iterator[str]:
    for file in node.files:
        if not file.path.exists():
            yield f"{file.shown} ({node.kind}): missing"
        elif file.sha256 and (found := sha256_file(file.path)) != file.sha256:
            yield f"{file.shown} ({node.kind}): changed: sha256 is {found[:12]}…, recorded as {file.sha256[:12]}…"
