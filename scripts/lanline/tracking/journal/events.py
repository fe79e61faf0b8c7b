"""The record of one run on disk: an append-only file of JSON lines, complete whatever becomes of MLflow.

A run's folder has ``journal/<key>.jsonl``; the keys sort by time, the last one is the current run of that
folder. Each line is one event: ``start``, ``resume``, ``params``, ``metrics`` (with step and time), ``tags``,
``links`` (tags whose value is the id of another run or experiment), ``dataset``, ``artifact``, ``register`` (a
version in MLflow's model registry), ``end``. Times are milliseconds since 1970, as in MLflow. The writer
holds a lock on the file as long as it lives, which is how others tell a dead run from a slow one.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lanline.errors import UserError
from lanline.files import redact_values

FORMAT_VERSION = 1
FOLDER = "journal"
PATIENCE = 10.0  # the workers of a killed training outlive it for a moment, and hold its journal
DIED = "died without an end (kill -9, out of memory, or lost power)"

Event = dict[str, Any]


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_key() -> str:
    """Name of a new run, unique everywhere, sorted by time."""
    seconds, milliseconds = divmod(now(), 1000)
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f"{milliseconds:03d}-" + secrets.token_hex(6)


def journals(folder: Path) -> list[Path]:
    """Journals of the runs that wrote their report to ``folder``, oldest first."""
    return sorted((Path(folder) / FOLDER).glob("*.jsonl"))


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Events from byte ``offset`` on, each with the offset after it; a line that is still being written is
    left out.

    Raises:
        UserError: the file cannot be read, or has a line that is not JSON other than one torn by a crash.
    """
    try:
        with Path(path).open("rb") as handle:
            handle.seek(offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                if line.strip():
                    yield json.loads(line), offset
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not a journal of lanline: {error}") from None


def summary(path: Path) -> Event:
    """The start event with ``status`` as of the last event: RUNNING, FINISHED, FAILED or KILLED.

    A run that is RUNNING may be dead: see `is_alive`. An empty file (killed before its first line) gives {}.
    """
    state: Event = {}
    for event, _ in read_events(path):
        if event["event"] == "start":
            state = {**event, "status": "RUNNING"}
        elif event["event"] == "resume":
            state["status"] = "RUNNING"
        elif event["event"] == "end":
            state.update(status=event["status"], reason=event.get("reason"))
    return state


def is_alive(path: Path) -> bool:
    """Whether a process is writing this journal."""
    with Path(path).open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_until_free(folder: Path) -> None:
    """Let no two runs write their results to one folder.

    Raises:
        UserError: a run goes on there.
    """
    deadline = time.monotonic() + PATIENCE
    while alive := [journal for journal in journals(folder) if is_alive(journal)]:
        if time.monotonic() > deadline:
            raise taken(alive[-1])
        time.sleep(0.1)


def taken(journal: Path) -> UserError:
    return UserError(f"{journal} is being written by another process: wait for it, or end it")


def end_if_dead(path: Path) -> bool:
    """Write the end that a killed run could not write. Gives whether there was need to."""
    try:
        journal = Journal(path)
    except BlockingIOError:
        return False
    with journal:
        if summary(path).get("status") != "RUNNING":
            return False
        journal.append("end", status="KILLED", reason=DIED, time=int(path.stat().st_mtime * 1000))
    return True


class Journal:
    """A journal that is open for appending, and locked.

    Raises:
        BlockingIOError: another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = self.path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        self._cut_torn_line()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, kind: str, **fields: Any) -> None:
        """Add one event. Credentials of URIs are cut out of whatever it holds."""
        line = json.dumps(redact_values({"event": kind, **fields}), allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()
        if kind in ("start", "end"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _cut_torn_line(self) -> None:
        """Remove a last line that a killed writer did not finish."""
        text = self.path.read_bytes()
        if text and not text.endswith(b"\n"):
            self._file.truncate(text.rfind(b"\n") + 1)


def encode_number(value: float) -> float | str:
    """JSON has no NaN and no infinity; they are written as text that ``float`` reads."""
    value = float(value)
    return value if math.isfinite(value) else str(value)
