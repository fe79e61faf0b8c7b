"""The start of a tracked run: a training, an evaluation, the making of a data set.

    with open_run(folder, "ddm-lan-torch-s1", "ddm-training", store=resolve_store(), params={...}) as run:
        run.log_metrics({"loss": 0.1}, step=1)

Here it is decided which run is gone on with; what it records is in `lanline.tracking.journal.recorder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lanline.errors import UserError
from lanline.files import sha256_json
from lanline.lineage.records import unfinished_run
from lanline.tracking.journal.events import FOLDER, FORMAT_VERSION, journals, new_key, now, summary
from lanline.tracking.journal.origin import standard_tags
from lanline.tracking.journal.recorder import Run, checked_name
from lanline.tracking.mlflow.mirror import KEY_TAG, Position, position_file
from lanline.tracking.mlflow.store import Store, connect


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
) -> Run:
    """A run that records itself in ``folder``, to be used in a ``with`` block.

    The run before it in the same folder is gone on with if it did not finish and had the same name,
    experiment and params; else the new run takes its place (tags ``supersedes`` and, once it has finished,
    ``superseded_by``). Entering the block raises `UserError` while another process writes a run there.

    Args:
        folder: report folder of the run; the journal lies in its ``journal/``.
        name: name to show in MLflow.
        experiment: MLflow experiment.
        store: from `resolve_store`; None leaves MLflow out.
        on_outage: ``spool`` goes on without the store and keeps the record; ``fail`` raises before anything
            is computed.
        follow: bring the record to MLflow as it grows, by a process beside this one, instead of at the end.
        resume: whether an unfinished run may be gone on with.
        params: settings that determine the run.
        tags: more tags.
        links: as in `Run.link`, e.g. {"data_generation_run_id": "run:<key>", "mlflow.parentRunId":
            "run:<key>"}.
        description: text that MLflow shows at the top of the run (Markdown).
        run_id: an existing MLflow run to go on with, which has not finished.

    Raises:
        StoreUnavailable: with ``on_outage="fail"`` or ``run_id``, if the store cannot be reached.
        UserError: ``run_id`` is unknown, deleted, has finished, or began with other params.
    """
    folder = Path(folder)
    texts = {checked_name(key): str(value) for key, value in (params or {}).items()}
    identity = sha256_json({"name": name, "experiment": experiment, "params": texts})
    if run_id and store is None:
        raise UserError(f"MLflow run {run_id} cannot be gone on with while tracking is off")
    client = connect(store) if store and (on_outage == "fail" or run_id) else None
    adopted = unfinished_run(client, store, run_id) if run_id else None
    earlier = journals(folder)
    previous = summary(earlier[-1]) if earlier else {}
    shown = store.shown if store else None
    key = new_key()
    note = {"mlflow.note.content": description} if description else {}
    start = {
        "version": FORMAT_VERSION,
        "key": key,
        "name": name,
        "experiment": experiment,
        "store": shown,
        "time": now(),
        "identity": identity,
        "supersedes": previous.get("key") if previous.get("store") == shown else None,
        "links": dict(links or {}),
        "tags": {
            **standard_tags(),
            **{checked_name(tag): str(value) for tag, value in (tags or {}).items()},
            **note,
        },
    }
    if previous and resume and previous["status"] != "FINISHED":
        same = previous["identity"] == identity
        if adopted and adopted.data.tags.get(KEY_TAG) == previous["key"]:
            if not same:
                raise UserError(
                    f"MLflow run {run_id} began with other settings, code, libraries or files; begin another one: "
                    "give no run id"
                )
            return Run(earlier[-1], store, follow, start, resumed=True)
        if not adopted and same and previous["store"] == shown:
            return Run(earlier[-1], store, follow, start, resumed=True)
    journal = folder / FOLDER / f"{key}.jsonl"
    if adopted:
        position = Position(run_id=adopted.info.run_id, experiment_id=adopted.info.experiment_id)
        position.write(position_file(journal))
        start["adopts"] = adopted.info.status
    return Run(journal, store, follow, start, texts)
