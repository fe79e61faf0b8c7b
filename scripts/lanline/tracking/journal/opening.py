"""The start of a tracked run: a training, an evaluation, the making of a data set.

    with open_run(folder, "ddm-lan-torch-s1", "ddm-training", store=resolve_store(), params={...}) as run:
        run.log_metrics({"loss": 0.1}, step=1)

Here it is decided which run is resumed; what it records is in `lanline.tracking.journal.recorder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanline.errors import UserError
from lanline.files import sha256_json
from lanline.logs import say
from lanline.tracking.journal.events import FOLDER, Start, journals, new_key, now
from lanline.tracking.journal.origin import standard_tags
from lanline.tracking.journal.position import Position, position_file
from lanline.tracking.journal.record import RunRecord, read_run
from lanline.tracking.journal.recorder import LiveRun, checked_name
from lanline.tracking.mlflow.store import Store, connect
from lanline.tracking.mlflow.tracked import KEY_TAG, unfinished_run

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun


def open_run(
    folder: Path,
    name: str,
    experiment: str,
    *,
    store: Store | None = None,
    on_outage: str = "spool",
    follow: bool = False,
    resume: bool = True,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    links: Mapping[str, str] | None = None,
    description: str | None = None,
    run_id: str | None = None,
) -> LiveRun:
    """A run that records itself in ``folder``, to be used in a ``with`` block.

    The run before it in the same folder is resumed if it did not finish and had the same name,
    experiment and params; else the new run replaces it (tags ``supersedes`` and, once it has finished,
    ``superseded_by``). Entering the block raises `UserError` while another process writes a run there.

    Args:
        folder: report folder of the run; the journal lies in its ``journal/``.
        name: name to show in MLflow.
        experiment: MLflow experiment.
        store: from `resolve_store`; None leaves MLflow out.
        on_outage: ``spool`` continues without the store and keeps the record on disk; ``fail`` raises before anything
            is computed.
        follow: sync the record to MLflow as it grows, by a process beside this one, instead of at the end.
        resume: whether an unfinished run may be resumed.
        params: settings that determine the run.
        tags: more tags.
        links: as in `RunRecorder.link`, e.g. {"data_generation_run_id": "run:<key>", "mlflow.parentRunId":
            "run:<key>"}.
        description: text that MLflow shows at the top of the run (Markdown).
        run_id: an existing MLflow run to resume, which has not finished.

    Raises:
        StoreUnavailable: with ``on_outage="fail"`` or ``run_id``, if the store cannot be reached.
        UserError: ``run_id`` is unknown, deleted, has finished, or began with other params.
    """
    folder = Path(folder)
    texts = {checked_name(key): str(value) for key, value in (params or {}).items()}
    if run_id and store is None:
        raise UserError(f"MLflow run {run_id} cannot be resumed while tracking is off")
    client = connect(store) if store and (on_outage == "fail" or run_id) else None
    adopted = unfinished_run(client, store, run_id) if client and store and run_id else None
    earlier = journals(folder)
    previous = _last_run(earlier)
    shown = store.shown if store else None
    note = {"mlflow.note.content": description} if description else {}
    start = Start(
        key=new_key(earlier[-1].stem if earlier else None),
        name=name,
        experiment=experiment,
        store=shown,
        time=now(),
        identity=sha256_json({"name": name, "experiment": experiment, "params": texts}),
        supersedes=previous.key if previous and _same_store(previous, store) else None,
        links=dict(links or {}),
        tags={**standard_tags(), **{checked_name(tag): str(value) for tag, value in (tags or {}).items()}, **note},
        adopts=adopted.info.status if adopted else None,
    )
    if previous and resume and _resumes(previous, start, store, adopted):
        return LiveRun(earlier[-1], store, start, texts, True, follow)
    journal = folder / FOLDER / f"{start.key}.jsonl"
    if adopted:
        position = Position(run_id=adopted.info.run_id, experiment_id=adopted.info.experiment_id)
        position.write(position_file(journal))
    return LiveRun(journal, store, start, texts, False, follow)


def _last_run(earlier: list[Path]) -> RunRecord | None:
    """The last run of a folder; a damaged journal is named, and holds up nothing."""
    if not earlier:
        return None
    try:
        return read_run(earlier[-1])
    except UserError as error:
        say(f"{error}. Its run is not resumed; a new one is started")
        return None


def _same_store(previous: RunRecord, store: Store | None) -> bool:
    return previous.store is None if store is None else previous.store is not None and store.is_named(previous.store)


def _resumes(previous: RunRecord, start: Start, store: Store | None, adopted: MlflowRun | None) -> bool:
    """Whether the last run of the folder is the one to resume."""
    if previous.status == "FINISHED":
        return False
    same = previous.identity == start.identity
    if adopted and adopted.data.tags.get(KEY_TAG) == previous.key:
        if not same:
            raise UserError(
                f"MLflow run {adopted.info.run_id} was started with other settings, code, libraries or files: "
                "omit --mlflow-run-id to start a new run"
            )
        return True
    return not adopted and same and _same_store(previous, store)
