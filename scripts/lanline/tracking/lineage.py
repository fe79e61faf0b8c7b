"""Which data a network was trained on: the run of a data set in MLflow, its inventory, and the way from a
training to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.errors import UserError
from lanline.files import redact
from lanline.paths import INVENTORY
from lanline.sidecars import Dataset
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.recorder import RunRecorder
from lanline.tracking.mlflow.store import Store, call, call_all, connect_to_read
from lanline.tracking.mlflow.tracked import KEY_TAG, find_run

SHARD_RECORDS = "shard_records.json"  # engine, machine, job and libraries of each shard


@dataclass(frozen=True)
class DatasetRun:
    """The run of a data set, as MLflow has it. What another program than lanline recorded may lack ids."""

    run_id: str
    name: str
    key: str | None
    model: str | None
    dataset_id: str | None
    lineage_id: str | None
    folder: str | None
    start_time: int


def record_dataset(
    report_folder: Path,
    inventory: Path,
    *,
    experiment: str,
    model: str,
    dataset_id: str,
    lineage_id: str,
    data_folder: Path,
    files: int,
    rows: int,
    params: Mapping[str, Any],
    config: Path,
    shard_records: Path | None = None,
    store: Store | None,
    on_outage: str = "spool",
    name: str | None = None,
) -> RunRecorder:
    """Record a data set as a run of its own; the data set recorded before in the same folder is superseded.

    Args:
        report_folder: where the journal of the run lies.
        inventory: file ``generated_files_inventory.json``: a list ``files`` with file, bytes, rows, sha256,
            seed.
        experiment: ``{model}-data-generation``.
        model: name of the model.
        dataset_id: hash of the content; the digest of the MLflow data set.
        lineage_id: hash of the recipe.
        data_folder: folder of the files.
        files: number of files.
        rows: number of rows in all files.
        params: settings that the data were made with, flat.
        config: the configuration file, kept as an artifact.
        shard_records: file ``shard_records.json``, kept as an artifact.
        store: from `resolve_store`, or None with tracking off.
        on_outage: see `lanline.tracking.journal.opening.open_run`.
        name: of the run in MLflow; default: ``{model}-data-{dataset_id}``.

    Returns:
        The finished run: ``key``, and ``run_id`` and ``experiment_id``, which are None if MLflow was not
        reached.

    Raises:
        UserError: ``inventory`` has another name.
    """
    if inventory.name != INVENTORY:
        raise UserError(f"{inventory}: the inventory of a data set must be called {INVENTORY}")
    ids = {"model": model, "dataset_id": dataset_id, "lineage_id": lineage_id}
    source = str(data_folder.resolve())
    run = open_run(
        report_folder,
        name or f"{model}-data-{dataset_id[:8]}",
        experiment,
        store=store,
        on_outage=on_outage,
        params={**params, "data_output_folder": source},
        tags={"stage": "data-generation", **ids},
        description=f"{rows:,} rows in {files} files for model {model}, data set `{dataset_id}`.",
    )
    with run:
        run.log_artifact(inventory)
        run.log_artifact(config, "config")
        if shard_records:
            run.log_artifact(shard_records)
        run.log_metrics({"files": files, "rows": rows})
        profile = {"rows": rows, "files": files}
        run.log_dataset(f"{model}-data", dataset_id, source, "generated", tags=ids, profile=profile)
    return run


def lineage_tags(dataset: Dataset) -> dict[str, str]:
    """Tags of a run that uses ``dataset``: its ids, as far as they are known. MLflow shows the data set's run as the
    parent of the trainings on it."""
    tags = {
        "dataset_id": dataset.dataset_id,
        "lineage_id": dataset.lineage_id,
        "data_generation_experiment_id": dataset.experiment_id,
        "data_generation_run_id": dataset.run_id,
        "mlflow.parentRunId": dataset.run_id,
    }
    return {tag: value for tag, value in tags.items() if value is not None}


def lineage_links(dataset: Dataset) -> dict[str, str]:
    """Links for the ids that MLflow has not given yet, because it could not be reached (see `RunRecorder.link`)."""
    if dataset.tracking_uri is None or dataset.run_id is not None or dataset.tracking_key is None:
        return {}
    return {
        "data_generation_experiment_id": f"experiment:{dataset.experiment_name}",
        "data_generation_run_id": f"run:{dataset.tracking_key}",
        "mlflow.parentRunId": f"run:{dataset.tracking_key}",
    }


def log_training_data(run: RunRecorder, dataset: Dataset, context: str = "training") -> None:
    """Record ``dataset`` as an input of ``run``."""
    source = str(Path(dataset.folder).resolve())
    tags = {"dataset_id": dataset.dataset_id, "lineage_id": dataset.lineage_id}
    profile = {"rows": dataset.rows, "files": dataset.files}
    run.log_dataset(f"{dataset.model}-data", dataset.dataset_id, source, context, tags=tags, profile=profile)


def find_dataset_run(store: Store, dataset: Dataset) -> str | None:
    """MLflow's id of the run of a data set that was recorded while MLflow was away, once all of it was brought over.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    if dataset.tracking_key is None:
        return None
    client = connect_to_read(store)
    run_id = find_run(client, store, dataset.tracking_key)
    return run_id if run_id and call(store, client.get_run, run_id).info.status == "FINISHED" else None


def read_inventory(store: Store, run_id: str) -> dict[str, Any]:
    """The inventory as MLflow holds it.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: there is no such run, or it has no inventory.
    """
    client = connect_to_read(store)
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = call(store, client.download_artifacts, run_id, INVENTORY, folder)
        except (MlflowException, OSError) as error:
            message = redact(str(error)).splitlines()[0]
            raise UserError(f"MLflow run {run_id} in {store.shown} has no {INVENTORY}: {message}") from None
        return json.loads(Path(path).read_text())


def find_dataset_runs(store: Store, experiment_id: str) -> list[DatasetRun]:
    """Finished, live (not superseded) runs with a data set in an experiment, newest first.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: there is no such experiment.
    """
    client = connect_to_read(store)
    from mlflow.exceptions import MlflowException

    try:
        experiment = call(store, client.get_experiment, experiment_id)
    except MlflowException as error:
        raise UserError(f"{store.shown} has no experiment with id {experiment_id}: {error.message}") from None
    if experiment.lifecycle_stage == "deleted":
        raise UserError(f"experiment {experiment_id} ({experiment.name}) was deleted in {store.shown}")
    found = call_all(store, client.search_runs, [experiment_id], "attributes.status = 'FINISHED'")
    return [_dataset_run(run) for run in found if "superseded_by" not in run.data.tags and _has_data(run)]


def _has_data(run: Any) -> bool:
    # ssm-simulators' own `generate` tags phase=datagen and records the folder; its dry runs are
    # datagen_dry_run.
    return "data_output_folder" in run.data.params and run.data.tags.get("phase", "datagen") == "datagen"


def _dataset_run(run: Any) -> DatasetRun:
    tags, params = run.data.tags, run.data.params
    return DatasetRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        key=tags.get(KEY_TAG),
        model=tags.get("model") or params.get("model"),
        dataset_id=tags.get("dataset_id"),
        lineage_id=tags.get("lineage_id"),
        folder=params.get("data_output_folder"),
        start_time=run.info.start_time,
    )
