"""What can be wrong with training data, and whether a user may train on it anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lanline.errors import UserError
from lanline.logs import say

# What no training could read or survive is never accepted.
NEVER_ACCEPTED = frozenset(
    {"missing", "truncated", "changed", "unreadable", "model", "header", "shape", "dtype", "not finite", "inventory"}
)
SHOWN = 20  # problems in a message
MARK_LENGTH = 400  # characters
HOW_TO_ACCEPT = (
    "to train on these data anyway, set data.accept_problems: true (commands: --accept-data-problems); "
    "the network's records will say so"
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, and why."""

    file: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.reason}"


def shown(path: Path) -> str:
    """The name of a file, of a shard that was made of a pickle the pickle's."""
    return path.stem if Path(path.stem).suffix in (".pickle", ".pkl") else path.name


def refuse_unless_accepted(problems: Sequence[Problem], folder: object, accept: bool) -> tuple[str, ...]:
    """The accepted problems, in words; none where there are none.

    Args:
        problems: that were found.
        folder: where the data lie, for the message.
        accept: whether the user wants to train on such data.

    Raises:
        UserError: there are problems that are not accepted; the message lists them.
    """
    if not problems:
        return ()
    listed = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        listed.append(f"  and {len(problems) - SHOWN} more")
    found = "\n".join([f"{len(problems)} problem(s) with the data in {folder}:", *listed])
    fatal = any(problem.kind in NEVER_ACCEPTED for problem in problems)
    if fatal or not accept:
        raise UserError(found if fatal else f"{found}\n{HOW_TO_ACCEPT}")
    say(f"{found}\naccepted (data.accept_problems); the network's records list them")
    return tuple(map(str, problems))


def marked(accepted: Sequence[str]) -> str:
    """Accepted problems as a line for metadata and tags: their number and the first ones."""
    first = "; ".join(accepted)
    return f"{len(accepted)}: {first if len(first) <= MARK_LENGTH else first[:MARK_LENGTH] + '...'}"
