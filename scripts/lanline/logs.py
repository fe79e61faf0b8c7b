"""What a job prints: all of it into its log file, and a few lines for the person who waits."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from lanline.errors import UserError
from lanline.locks import try_lock

JOBS_LOCK = Path(".snakemake/lanline-jobs.lock")  # shared by all jobs that run in this folder
PLAIN_SECONDS = 10.0  # between lines about progress where they cannot replace each other
CLEAR_LINE = "\r\033[K"
BOARD = "LANLINE_BOARD"  # environment variable: folder where a Snakemake reads what its jobs say, to show it itself

_terminal: TextIO | None = None  # beside stderr, while that goes to a job's log
_notice: Notice | None = None  # in place of the terminal
_last_plain: dict[int, float] = {}  # by stream: when a line about progress was last printed there


@dataclass(frozen=True)
class Notice:
    """What one job says, as files on the board: how far it is, and lines to keep."""

    status: Path
    lines: Path

    @classmethod
    def of(cls, board: Path, log: Path | str) -> Notice:
        """The notice of the job that has this log."""
        name = quote(str(log), safe="")
        return cls(board / f"{name}.status", board / f"{name}.lines")


def say(message: str) -> None:
    """One line for the person who waits; it goes into the job's log too."""
    if _notice:
        with _notice.lines.open("a", encoding="utf-8") as file:
            print(message, file=file)
    for stream in _streams():
        print(f"{CLEAR_LINE if stream.isatty() else ''}{message}", file=stream, flush=True)


def note(message: str) -> None:
    """As `say`, for the usual course of the work: a Snakemake that shows its jobs itself has it as a status only."""
    if _notice:
        _notice.status.write_text(message, encoding="utf-8")
        print(message, file=sys.stderr, flush=True)
    else:
        say(message)


def show_progress(message: str) -> None:
    """How far a long work is: on a terminal one line that the next one replaces, elsewhere a line every ten seconds."""
    if _notice:
        _notice.status.write_text(message, encoding="utf-8")
    for stream in _streams():
        if stream.isatty():
            width = os.get_terminal_size(stream.fileno()).columns or len(message) + 1
            print(f"{CLEAR_LINE}{message[: width - 1]}", end="", file=stream, flush=True)
        elif time.monotonic() - _last_plain.setdefault(id(stream), time.monotonic()) >= PLAIN_SECONDS:
            _last_plain[id(stream)] = time.monotonic()
            print(message, file=stream, flush=True)


def _streams() -> list[TextIO]:
    return [sys.stderr] if _terminal is None else [_terminal, sys.stderr]


@contextmanager
def job_log(path: Path) -> Iterator[None]:
    """Send everything that the job prints (C libraries included) to ``path``; `say` still reaches the terminal.

    A user's mistake ends the job with its message, anything else with a traceback in the log; both with exit code 1.
    Until it ends the job is seen to run here (`lanline.cluster.folder`), whatever becomes of its Snakemake.
    """
    global _terminal, _notice
    JOBS_LOCK.parent.mkdir(exist_ok=True)
    running = JOBS_LOCK.open("a+")  # closed with this frame
    with suppress(OSError):  # a file system without locks
        try_lock(running, shared=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    board = os.environ.get(BOARD)
    if board and Path(board).is_dir():  # of another machine's folder a job on a cluster knows the name only
        _notice = Notice.of(Path(board), path)
    else:
        _terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    with path.open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    except UserError as error:
        say(f"error: {error}")
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        say(f"error: {type(error).__name__}: {error} (traceback in {path})")
        sys.exit(1)
