"""Stage record_lineage: the inventory of a data set and its run in MLflow, written once for all shards."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.config import Config
from lanline.dataset.inventory import Inventory, build_inventory
from lanline.experiment import flatten
from lanline.files import write_config, write_json
from lanline.logs import note
from lanline.paths import SHARD_RECORDS, Paths, shard_label
from lanline.sidecars import DatasetSidecar, ShardSidecar
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.recorder import RunRecorder
from lanline.tracking.mlflow.store import Store, store_of


@dataclass(frozen=True)
class LineageRequest:
    """Which data set is recorded, and where.

    Attributes:
        config: the run's configuration; the data set has ``data.shards`` shards.
        model: name of the model.
        paths: where shards, inventory, sidecar and report lie.
        experiment: MLflow experiment of the data set's run.
        run_name: of that run; default: ``{model}-data-{dataset_id}``.
    """

    config: Config
    model: str
    paths: Paths
    experiment: str
    run_name: str | None = None


def record_lineage(request: LineageRequest) -> DatasetSidecar:
    """Write the inventory of a data set, record its run, and write ``dataset.json``.

    Raises:
        UserError: the records of the shards do not make one data set.
        StoreUnavailable: the store is unreachable, and tracking.on_outage is ``fail``.
    """
    config, model, paths = request.config, request.model, request.paths
    labels = [shard_label(shard) for shard in range(config.data.shards)]
    records = [ShardSidecar.read(paths.shard_record(model, label)) for label in labels]
    inventory = build_inventory(records)
    folder, report, store = paths.data_folder(model), paths.data_report(model), store_of(config)
    write_json(paths.inventory(model), inventory.to_json())
    write_config(report / "config.yaml", config.model_dump(mode="json"))
    write_json(report / SHARD_RECORDS, [record.model_dump(mode="json") for record in records])
    made_by = {**config.data_recipe(model), "engine_used": records[0].engine, "shards": len(records)}
    record = DatasetRecord(
        inventory,
        folder,
        params=flatten(made_by),
        artifacts={paths.inventory(model): "", report / "config.yaml": "config", report / SHARD_RECORDS: ""},
        experiment=request.experiment,
        name=request.run_name or f"{model}-data-{inventory.dataset_id[:8]}",
    )
    run = record_dataset(record, report, store, config.tracking.on_outage)
    note(f"{model}: data set {inventory.dataset_id}, {inventory.rows:,} rows in {len(records)} shards")
    dataset = DatasetSidecar(
        model=model,
        dataset_id=inventory.dataset_id,
        lineage_id=inventory.lineage_id,
        folder=str(folder),
        files=len(inventory.files),
        rows=inventory.rows,
        tracking_uri=store.shown if store else None,
        experiment_id=run.experiment_id,
        experiment_name=request.experiment,
        run_id=run.run_id,
        tracking_key=run.key if store else None,
    )
    dataset.write(paths.dataset(model))
    shutil.rmtree(paths.unfinished(model), ignore_errors=True)  # all shards are in their places
    return dataset


@dataclass(frozen=True)
class DatasetRecord:
    """What is recorded of a data set.

    Attributes:
        inventory: its files and ids.
        folder: where the files lie.
        params: settings that they were made with, flat.
        artifacts: files to keep with the run, and the folder of each among its artifacts; the inventory is one.
        experiment: MLflow experiment.
        name: of the run.
    """

    inventory: Inventory
    folder: Path
    params: Mapping[str, Any]
    artifacts: Mapping[Path, str]
    experiment: str
    name: str


def record_dataset(record: DatasetRecord, report: Path, store: Store | None, on_outage: str = "spool") -> RunRecorder:
    """Record a data set as a run; the data set recorded before in the same folder is superseded.

    Args:
        record: what is recorded.
        report: folder for the run's journal.
        store: None with tracking off.
        on_outage: see `lanline.tracking.journal.opening.open_run`.

    Returns:
        The finished run; its ``run_id`` and ``experiment_id`` are None if MLflow was not reached.
    """
    inventory, source = record.inventory, str(record.folder.resolve())
    model, rows, files = inventory.model, inventory.rows, len(inventory.files)
    ids = {"model": model, "dataset_id": inventory.dataset_id, "lineage_id": inventory.lineage_id}
    run = open_run(
        report,
        record.name,
        record.experiment,
        store=store,
        on_outage=on_outage,
        params={**record.params, "data_output_folder": source},
        tags={"stage": "data-generation", **ids},
        description=f"{rows:,} rows in {files} files for model {model}, data set `{inventory.dataset_id}`.",
    )
    with run:
        for path, folder in record.artifacts.items():
            run.log_artifact(path, folder)
        counts = {"rows": rows, "files": files}
        run.log_metrics(counts)
        run.log_dataset(f"{model}-data", inventory.dataset_id, source, "generated", tags=ids, profile=counts)
    return run
