"""The stages around the data set: what rules and commands call. See also `training_stage`, `evaluation_stage`."""

from __future__ import annotations

import json
from pathlib import Path

from lanline.config import Config
from lanline.dataset.inventory import Inventory, build_inventory
from lanline.dataset.validation import ValidationReport, validate_dataset
from lanline.errors import UserError
from lanline.experiment import flatten
from lanline.files import write_config, write_json
from lanline.logs import say
from lanline.sidecars import Dataset, Experiment, Experiments, ShardRecord
from lanline.tracking.lineage import SHARD_RECORDS, find_dataset_run, read_inventory, record_dataset
from lanline.tracking.mlflow import store as tracking_store
from lanline.tracking.mlflow.store import StoreUnavailable, connect, experiment_name, get_run, store_of


def open_experiments(config: Config, model: str) -> Experiments:
    """Make the store and the experiments of a model.

    Raises:
        StoreUnavailable: the store cannot be reached, and the configuration says not to go on without it.
    """
    training_name = experiment_name(None, config.mlflow_experiment_name, f"{model}-training")
    names = [f"{model}-data-generation", training_name]
    generation, training = opened(config, names)
    store = store_of(config)
    return Experiments(tracking_uri=store.shown if store else None, data_generation=generation, training=training)


def opened(config: Config, names: list[str]) -> list[Experiment]:
    """Experiments of these names, made in the store if there is one. Raises as `open_experiments` does."""
    ids: dict[str, str] = {}
    if store := store_of(config):
        try:
            ids = tracking_store.open_experiments(store, names)
        except StoreUnavailable as error:
            if config.tracking.on_outage == "fail":
                raise
            say(f"{error}; going on, the record is kept on disk")
    return [Experiment(name=name, experiment_id=ids.get(name)) for name in names]


def record_lineage(
    config: Config,
    model: str,
    records: list[ShardRecord],
    experiments: Experiments,
    folder: Path,
    inventory_path: Path,
    report: Path,
    run_name: str | None = None,
) -> Dataset:
    """Write the inventory of a data set and record its run.

    Args:
        config: the run's configuration.
        model: name of the model.
        records: of all shards.
        experiments: of the model.
        folder: where the shards lie.
        inventory_path: where the inventory goes.
        report: folder for the record of the data set's run.
        run_name: of that run in MLflow, if it is to have another than its own.

    Raises:
        UserError: the records do not make one data set.
    """
    inventory = build_inventory(records)
    write_json(inventory_path, inventory.to_json())
    settings = config.data_recipe(model)
    write_config(report / "config.yaml", config.model_dump(mode="json"))
    write_json(report / SHARD_RECORDS, [record.model_dump(mode="json") for record in records])
    run = record_dataset(
        report,
        inventory_path,
        experiment=experiments.data_generation.name,
        model=model,
        dataset_id=inventory.dataset_id,
        lineage_id=inventory.lineage_id,
        data_folder=folder,
        files=len(inventory.files),
        rows=inventory.rows,
        params=flatten({**settings, "engine_used": records[0].engine, "shards": len(records)}),
        config=report / "config.yaml",
        shard_records=report / SHARD_RECORDS,
        store=store_of(config),
        on_outage=config.tracking.on_outage,
        name=run_name,
    )
    say(f"{model}: data set {inventory.dataset_id}, {inventory.rows:,} rows in {len(records)} shards")
    return Dataset(
        model=model,
        dataset_id=inventory.dataset_id,
        lineage_id=inventory.lineage_id,
        folder=str(folder),
        files=len(inventory.files),
        rows=inventory.rows,
        tracking_uri=experiments.tracking_uri,
        experiment_id=run.experiment_id,
        experiment_name=experiments.data_generation.name,
        run_id=run.run_id,
        tracking_key=run.key if experiments.tracking_uri else None,
    )


def validate_training_data(config: Config, dataset: Dataset, local_inventory: Path, threads: int) -> ValidationReport:
    """Compare a data set with the inventory that MLflow holds, or with the local one where MLflow has none.

    Raises:
        UserError: something is wrong with the data; the message is the full list.
    """
    inventory, source = tracked_inventory(config, dataset, local_inventory)
    report = validate_dataset(Path(dataset.folder), inventory, source, config, threads)
    if inventory.dataset_id != dataset.dataset_id:
        raise UserError(f"{source} is of data set {inventory.dataset_id}, expected {dataset.dataset_id}")
    if report.problems:
        listed = "\n".join(f"  {problem}" for problem in report.problems)
        raise UserError(f"{len(report.problems)} problem(s) with the data in {dataset.folder}:\n{listed}")
    for note in report.notes:
        say(f"{dataset.model}: {note}")
    say(f"{dataset.model}: {report.files} shards agree with {source}, and with the engine")
    return report


def tracked_inventory(config: Config, dataset: Dataset, local_inventory: Path) -> tuple[Inventory, str]:
    """The inventory to compare with, and where it was read: that on disk if MLflow is away, or has lost the run."""
    store = store_of(config)
    if store:
        try:
            if dataset.run_id and get_run(connect(store), store, dataset.run_id) is None:
                # As after `make clean`. The data set's own id, in dataset.json, still tells other data from these.
                raise StoreUnavailable(
                    f"{store.shown} has no run {dataset.run_id} any more, that of data set {dataset.dataset_id} "
                    "(`snakemake -R record_lineage` records the data again, and trains anew)"
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
