"""The runs of data sets that MLflow holds, and their inventories."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.errors import UserError
from lanline.files import redact
from lanline.paths import INVENTORY
from lanline.sidecars import DatasetSidecar
from lanline.tracking.mlflow.store import Store, call, call_all, connect_to_read
from lanline.tracking.mlflow.tracked import KEY_TAG, find_run


@dataclass(frozen=True)
class DatasetRun:
    """The run of a data set, as MLflow has it. What another program than lanline recorded may lack ids."""

    run_id: str
    name: str
    key: str | None
    model: str | None
    dataset_id: str | None
    lineage_id: str | None
    folder: str
    start_time: int


def find_dataset_run(store: Store, dataset: DatasetSidecar) -> str | None:
    """MLflow's id of the run of a data set that was recorded while MLflow was unreachable, once all of it is synced.

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
        folder=params["data_output_folder"],
        start_time=run.info.start_time,
    )
