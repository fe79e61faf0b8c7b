"""The one writer of a journal. It holds a lock on the file as long as it lives, which is how others tell a dead run
from a slow one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TextIO

from lanline.errors import UserError
from lanline.locks import is_locked, try_lock
from lanline.tracking.journal.events import End, Event, Start, journals, to_line
from lanline.tracking.journal.position import lost_end
from lanline.tracking.journal.record import read_run

PATIENCE = 10.0  # seconds: the workers of a killed training outlive it for a moment, and hold its journal
DIED = "died without an end (kill -9, out of memory, or lost power)"


class Journal:
    """A journal that is open for appending, and locked.

    Raises:
        BlockingIOError: another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = self.path.open("a+")
        if not try_lock(self._file):
            self._file.close()
            raise BlockingIOError(f"{path} is being written")
        self._cut_torn_line()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, event: Event) -> None:
        """Add one event."""
        self._file.write(to_line(event))
        self._file.flush()
        if isinstance(event, Start | End):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _cut_torn_line(self) -> None:
        """Remove a last line that a killed writer did not finish."""
        text = self.path.read_bytes()
        if text and not text.endswith(b"\n"):
            self._file.truncate(text.rfind(b"\n") + 1)


def is_alive(path: Path) -> bool:
    """Whether a process is writing this journal."""
    return is_locked(path)


def wait_until_free(folder: Path) -> None:
    """Let no two runs write their results to one folder.

    Raises:
        UserError: a run is still active there.
    """
    deadline = time.monotonic() + PATIENCE
    while alive := [journal for journal in journals(folder) if is_alive(journal)]:
        if time.monotonic() > deadline:
            raise taken(alive[-1])
        time.sleep(0.1)


def taken(journal: Path) -> UserError:
    return UserError(f"{journal} is being written by another process: wait for it, or stop it")


def end_if_dead(path: Path) -> bool:
    """Write the end that a killed run could not write, and return whether it was missing.

    Where a power cut took the end away that MLflow has already, it is that one again.
    """
    try:
        journal = Journal(path)
    except BlockingIOError:
        return False
    with journal:
        run = read_run(path)
        if run is None or run.status != "RUNNING":
            return False
        died = End(status="KILLED", reason=DIED, time=int(path.stat().st_mtime * 1000))
        journal.append(lost_end(path) or died)
    return True
