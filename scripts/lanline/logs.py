"""What a job prints: all of it into its log file, and a few lines for the person who waits."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lanline.errors import UserError

_terminal: TextIO | None = None  # beside stderr, while that goes to a job's log


def say(message: str) -> None:
    """One line for the person who waits; it goes into the job's log too."""
    if _terminal is not None:
        print(message, file=_terminal, flush=True)
    print(message, file=sys.stderr, flush=True)


@contextmanager
def job_log(path: Path) -> Iterator[None]:
    """Send everything that the job prints (C libraries included) to ``path``; `say` still reaches the terminal.

    A user's mistake ends the job with its message, anything else with a traceback in the log; both with exit code 1.
    """
    global _terminal
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _terminal = os.fdopen(os.dup(2), "w")
    with path.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    except UserError as error:
        say(f"error: {error}")
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error} (traceback in {path})", file=_terminal, flush=True)
        sys.exit(1)
