"""How far a journal has been synced to MLflow: ``<key>.mirror.json`` beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import Field

from lanline.sidecars import Sidecar
from lanline.tracking.journal.events import End

TAIL_BYTES = 512


class Position(Sidecar):
    """What MLflow has of a journal.

    Attributes:
        run_id: MLflow's id of the run.
        experiment_id: and of its experiment.
        offset: bytes of the journal that MLflow has.
        tail: hash of the last of these bytes: a journal that a power cut shortened no longer has them.
        pending_links: links whose target MLflow does not have yet.
        end: the end of the run, if it is among them.
    """

    run_id: str | None = None
    experiment_id: str | None = None
    offset: int = 0
    tail: str = ""
    pending_links: dict[str, str] = Field(default_factory=dict)
    end: End | None = None


def position_file(journal: Path) -> Path:
    return Path(journal).with_suffix(".mirror.json")


def read_position(journal: Path) -> Position:
    path = position_file(journal)
    return Position.read(path) if path.exists() else Position()


def write_position(journal: Path, position: Position) -> None:
    """Write the position, after the bytes that it speaks of are safe on the disk."""
    with Path(journal).open("rb") as handle:
        os.fsync(handle.fileno())
    position.model_copy(update={"tail": tail_of(journal, position.offset)}).write(position_file(journal))


def tail_of(journal: Path, offset: int) -> str:
    """Hash of the last bytes before ``offset``."""
    with Path(journal).open("rb") as handle:
        handle.seek(max(0, offset - TAIL_BYTES))
        return hashlib.sha256(handle.read(min(offset, TAIL_BYTES))).hexdigest()


def is_of(position: Position, journal: Path) -> bool:
    """Whether a journal still has what MLflow has of it: a power cut can take lines that were not yet on the disk."""
    if position.offset > Path(journal).stat().st_size:
        return False
    return not position.tail or position.tail == tail_of(journal, position.offset)


def lost_end(journal: Path) -> End | None:
    """The end that MLflow has of a journal which has lost it."""
    position = read_position(journal)
    return None if is_of(position, journal) else position.end


def is_complete(journal: Path) -> bool:
    """Whether MLflow has everything that is in the journal so far."""
    position = read_position(journal)
    size = Path(journal).stat().st_size
    return position.offset == size and is_of(position, journal) and not position.pending_links
