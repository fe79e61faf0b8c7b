"""How a run ends, in MLflow's terms."""

from __future__ import annotations

from lanline.termination import Terminated


def ending(error: BaseException | None) -> tuple[str, str]:
    """MLflow status and reason of a run that ended with ``error``, or without one."""
    if isinstance(error, Terminated):
        return "KILLED", "SIGTERM (cancelled, or time limit reached)"
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted from the keyboard"
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED", ""
    return "FAILED", f"{type(error).__name__}: {error}"
