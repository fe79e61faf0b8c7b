"""Add later results to a run that has ended: the metrics and figures of a network's evaluation."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from lanline.errors import UserError
from lanline.tracking.journal.events import journals
from lanline.tracking.journal.recorder import Run
from lanline.tracking.mlflow.store import Store


class EndedRun(Run):
    """The last run that was recorded in a folder, open for additions; its status and times stay as they
    are."""

    def __enter__(self) -> EndedRun:
        self._open_journal()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._writer.close()
        if self._store:
            self._bring_over()


def amend_run(folder: Path, store: Store | None) -> EndedRun:
    """The last run of ``folder``, to be used in a ``with`` block.

    Args:
        folder: report folder of the run.
        store: as for `lanline.tracking.journal.opening.open_run`.

    Raises:
        UserError: no run was recorded there.
    """
    recorded = journals(folder)
    if not recorded:
        raise UserError(f"{folder}: no run was recorded there")
    return EndedRun(recorded[-1], store, follow=False)
