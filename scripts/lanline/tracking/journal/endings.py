"""How a run ends, in MLflow's terms."""

from __future__ import annotations

import signal


class Terminated(SystemExit):
    """SIGTERM: `scancel`, SLURM's time limit, `kill`. Passes `except Exception` and exits as a shell expects."""


def terminate(*_: object) -> None:
    """Handler of SIGTERM: ends the process as an exception does, so that what is open is closed."""
    raise Terminated(128 + signal.SIGTERM)


def ending(error: BaseException | None) -> tuple[str, str]:
    """MLflow status and reason of a run that ended with ``error``, or without one."""
    if isinstance(error, Terminated):
        return "KILLED", "SIGTERM (cancelled, or time limit reached)"
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted from the keyboard"
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED", ""
    return "FAILED", f"{type(error).__name__}: {error}"
