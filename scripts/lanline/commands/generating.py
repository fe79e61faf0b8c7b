"""`lanline generate`: from a configuration and the options to the stages that the workflow's rules run too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lanline.commands.foreign_config import SsmsFile, check, is_foreign, nested
from lanline.commands.options import TrackingOptions
from lanline.config import Config, check_experiment_names, check_time_limit, parse_config
from lanline.dataset.rows import block_rows
from lanline.engines import resolve_engine
from lanline.errors import UserError
from lanline.files import read_yaml
from lanline.logs import say
from lanline.paths import DataFolder
from lanline.stages.generate_shards import ShardsRequest, generate_shards, missing_shards
from lanline.stages.open_experiments import find_or_create
from lanline.stages.record_lineage import LineageRequest, record_lineage
from lanline.tracking.mlflow.store import experiment_name


def run_generation(config: Config, output: Path, cores: int, run_name: str | None, dry_run: bool) -> None:
    """Make a data set in a folder, or with ``dry_run`` one block of its rows in memory.

    Args:
        config: with one model.
        output: the folder.
        cores: files that are made at once.
        run_name: of the data set's run in MLflow; default: from model and data set.
        dry_run: whether to check everything and write nothing.

    Raises:
        UserError: ``output`` holds another data set.
    """
    model, n_files = config.models[0].name, config.data.shards
    paths = DataFolder(config.name, output)
    request = ShardsRequest(config, model, range(n_files), paths, cores)
    engine, missing = resolve_engine(config.model(model), config.data), missing_shards(request)
    name = experiment_name(None, config.mlflow_experiment_name, f"{model}-data-generation")
    check_experiment_names([name])
    if dry_run:
        block_rows(config.model(model), config.data, config.seed, 0, 0)
        say(
            f"dry run: {n_files} files of {model} with {config.data.rows_per_shard:,} rows each (engine {engine}) "
            f"in {output}, of which {n_files - len(missing)} exist; nothing was written"
        )
        return
    find_or_create(config, [name])  # an unreachable store is reported before anything is generated
    generate_shards(request)
    dataset = record_lineage(LineageRequest(config, model, paths, name, run_name))
    where = f", in MLflow experiment {dataset.experiment_id} ({name})" if dataset.experiment_id else ""
    say(f"{output}: data set {dataset.dataset_id}{where}")


def read_config(path: Path | None, n_files: int | None, seed: int | None, tracking: TrackingOptions) -> Config:
    """The configuration of one model's data: of a file, lanline's or ssm-simulators', or lanline's defaults for ddm.

    Args:
        path: the file.
        n_files: number of shards; default: the file's.
        seed: of the data; default: the file's.
        tracking: the options for MLflow.

    Raises:
        UserError: the file has mistakes, or several models.
    """
    source = str(path) if path else "lanline's default configuration"
    values: dict[str, Any] = read_yaml(path) if path else {"models": ["ddm"]}
    if is_foreign(values):
        file = check(SsmsFile, nested(values), source)
        values = {"models": [file.MODEL], "data": file.data()}
    options = tracking.configure(values, source)
    if tracking.experiment:
        options["mlflow_experiment_name"] = tracking.experiment
    if seed is not None:
        options["seed"] = seed
    config = parse_config({"name": "generate", **values, **options}, source)
    if len(config.models) != 1:
        names = ", ".join(entry.name for entry in config.models)
        raise UserError(
            f"{source} has several models ({names}): `lanline generate` supports one; use the workflow for several"
        )
    check_time_limit(config)
    data = config.data.model_copy(update={"shards": n_files or config.data.shards})
    return config.model_copy(update={"data": data})
