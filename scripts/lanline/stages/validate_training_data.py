"""Stage validate_training_data: the shards against what MLflow tracks, and against the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lanline.config import Config
from lanline.dataset.inventory import Inventory
from lanline.dataset.problems import refuse_unless_accepted
from lanline.dataset.validation import ValidationReport, validate_dataset
from lanline.errors import UserError
from lanline.files import write_json
from lanline.logs import note, say
from lanline.paths import Paths
from lanline.sidecars import DatasetSidecar
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.events import journals
from lanline.tracking.mlflow.dataset_runs import find_dataset_run, read_inventory
from lanline.tracking.mlflow.store import StoreUnavailable, connect_to_read, store_of
from lanline.tracking.mlflow.tracked import get_run


@dataclass(frozen=True)
class ValidationRequest:
    """Which data set is validated.

    Attributes:
        config: the run's configuration.
        model: name of the model.
        paths: where its data, inventory and report lie, and ``validation.json`` goes.
        threads: cores to use.
    """

    config: Config
    model: str
    paths: Paths
    threads: int


def validate_training_data(request: ValidationRequest) -> ValidationReport:
    """Compare a data set with the inventory that MLflow holds, or with the local one where MLflow has none.

    What was found goes to ``validation.json`` and to the data set's run.

    Raises:
        UserError: something is wrong with the data and not accepted; the message lists it.
        StoreUnavailable: the store is unreachable, and tracking.on_outage is ``fail``.
    """
    config, paths = request.config, request.paths
    dataset = DatasetSidecar.read(paths.dataset(request.model))
    inventory, source = tracked_inventory(config, dataset, paths.inventory(request.model))
    report = validate_dataset(Path(dataset.folder), inventory, source, config, request.threads)
    if inventory.dataset_id != dataset.dataset_id:
        raise UserError(f"{source} is of data set {inventory.dataset_id}, expected {dataset.dataset_id}")
    for remark in report.notes:
        say(f"{dataset.model}: {remark}")
    if not refuse_unless_accepted(report.problems, dataset.folder, config.data.accept_problems):
        note(f"{dataset.model}: {report.files} shards agree with {source}, and with the engine")
    write_json(paths.validation(request.model), report.to_json())
    _add_to_run(request, report, dataset.tracking_key)
    return report


def _add_to_run(request: ValidationRequest, report: ValidationReport, key: str | None) -> None:
    recorded = request.paths.data_report(request.model)
    if not journals(recorded):  # reports/ may have been cleared: the data are valid all the same
        return
    with amend_run(recorded, store_of(request.config), key) as run:
        run.set_tags({"validation": "accepted" if report.problems else "passed"})
        run.log_artifact(request.paths.validation(request.model))


def tracked_inventory(config: Config, dataset: DatasetSidecar, local_inventory: Path) -> tuple[Inventory, str]:
    """The inventory to compare with, and where it was read: the one on disk if MLflow is unreachable or lost the run.

    Raises:
        StoreUnavailable: MLflow is unreachable or lost the run, and tracking.on_outage is ``fail``.
    """
    store = store_of(config)
    if store:
        try:
            if dataset.run_id and get_run(connect_to_read(store), store, dataset.run_id) is None:
                # As after `make clean`. The data set's own id, in dataset.json, still tells other data from these.
                raise StoreUnavailable(
                    f"{store.shown} no longer has run {dataset.run_id} of data set {dataset.dataset_id} "
                    "(`snakemake -R record_lineage` records the data again, and retrains)"
                )
            if run_id := dataset.run_id or find_dataset_run(store, dataset):
                source = f"MLflow run {run_id}"
                return Inventory.from_json(read_inventory(store, run_id), source), source
        except StoreUnavailable as error:
            if config.tracking.on_outage == "fail":
                raise
            say(f"{error}; comparing with the inventory on disk")
    source = str(local_inventory)
    return Inventory.from_json(json.loads(local_inventory.read_text()), source), source
