"""Locks on files, the only mechanism that keeps processes apart: the system releases them however their holder
ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def try_lock(file: IO[Any], shared: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether that succeeded.

    Args:
        file: open, in any mode.
        shared: beside other shared locks, but beside no exclusive one.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds an exclusive lock on the file ``path``."""
    with Path(path).open("rb") as file:
        return not try_lock(file, shared=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes and threads; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
