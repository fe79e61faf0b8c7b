"""Add later results to a run that has ended: the metrics and figures of a network's evaluation."""

from __future__ import annotations

from pathlib import Path

from lanline.errors import UserError
from lanline.tracking.journal.events import journals
from lanline.tracking.journal.recorder import RunRecorder
from lanline.tracking.mlflow.store import Store


def amend_run(folder: Path, store: Store | None, key: str | None = None) -> RunRecorder:
    """A run that was recorded in ``folder``, to be used in a ``with`` block; its status and times stay as they are.

    Args:
        folder: report folder of the run.
        store: as for `lanline.tracking.journal.opening.open_run`.
        key: which run, as a sidecar names it; default: the last one.

    Raises:
        UserError: no run was recorded there, or not this one.
    """
    recorded = [journal for journal in journals(folder) if key in (None, journal.stem)]
    if not recorded:
        which = f"run {key} was not" if key and journals(folder) else "no run was"
        raise UserError(f"{folder}: {which} recorded there")
    return RunRecorder(recorded[-1], store)
