"""SIGTERM, as `scancel`, SLURM's time limit and `kill` send it, made an exception: what is open is closed."""

from __future__ import annotations

import signal

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """The process was told to end. Passes `except Exception`, and exits as a shell expects."""


def terminate(*_: object) -> None:
    """Handler of SIGTERM."""
    raise Terminated(EXIT_CODE)
