"""From the options of ``generate`` to the stages that the workflow's rules run too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.commands.foreign_config import SsmsFile, check, is_foreign, nested
from lanline.commands.options import note_unused_tracking_options
from lanline.config import Config, check_experiment_names, check_time_limit, parse_config
from lanline.data_stages import opened, record_lineage
from lanline.dataset.generate import generate_shards, is_whole
from lanline.dataset.inventory import lineage_id
from lanline.dataset.rows import block_rows
from lanline.engines import resolve_engine
from lanline.errors import UserError
from lanline.files import read_yaml, section
from lanline.logs import say
from lanline.paths import INVENTORY, record_file
from lanline.sidecars import Experiments, ShardRecord
from lanline.tracking.mlflow.store import experiment_name, store_of

DATASET, REPORT = "dataset.json", "report"


@dataclass(frozen=True)
class Request:
    """The options of ``generate``; see `lanline.commands.generate`."""

    output: Path
    config_path: Path | None
    n_files: int | None
    seed: int | None
    cores: int
    mlflow_on: bool
    tracking_uri: str | None
    artifact_location: str | None
    experiment_name: str | None
    run_name: str | None


def run_generation(request: Request, dry_run: bool) -> None:
    """Make the data set, or with ``dry_run`` one block of its rows in memory.

    Raises:
        UserError: the configuration has mistakes or several models, or ``output`` holds another data set.
    """
    config = _read_config(request)
    model, folder = config.models[0].name, request.output
    n_files = request.n_files or config.data.shards
    config = config.model_copy(update={"data": config.data.model_copy(update={"shards": n_files})})
    engine = resolve_engine(config.model(model), config.data)
    name = experiment_name(request.experiment_name, config.mlflow_experiment_name, f"{model}-data-generation")
    check_experiment_names([name])
    missing = [index for index in range(n_files) if not _is_there(folder, index, config, model)]
    if dry_run:
        block_rows(config.model(model), config.data, config.seed, 0, 0)
        say(
            f"dry run: {n_files} files of {model} with {config.data.rows_per_shard:,} rows each (engine {engine}) "
            f"in {folder}, {n_files - len(missing)} of them there; nothing was written"
        )
        return
    [experiment] = opened(config, [name])
    generate_shards(config, model, folder, missing, request.cores)
    store = store_of(config)
    dataset = record_lineage(
        config,
        model,
        [ShardRecord.read(folder / record_file(index)) for index in range(n_files)],
        Experiments(tracking_uri=store.shown if store else None, data_generation=experiment, training=experiment),
        folder,
        folder / INVENTORY,
        folder / REPORT,
        request.run_name,
    )
    dataset.write(folder / DATASET)
    where = f", in MLflow experiment {dataset.experiment_id} ({name})" if dataset.experiment_id else ""
    say(f"{folder}: data set {dataset.dataset_id}{where}")


def _read_config(request: Request) -> Config:
    source = str(request.config_path) if request.config_path else "lanline's default configuration"
    values: dict[str, Any] = read_yaml(request.config_path) if request.config_path else {"models": ["ddm"]}
    if is_foreign(values):
        file = check(SsmsFile, nested(values), source)
        values = {"models": [file.MODEL], "data": file.data()}
    given = {"uri": request.tracking_uri, "artifact_location": request.artifact_location}
    tracked = bool(request.mlflow_on or request.run_name or values.get("mlflow_tracking"))
    note_unused_tracking_options(tracked, **given)
    values = {
        "name": "generate",
        **values,
        "mlflow_tracking": tracked,
        "tracking": {**section(values, "tracking", source), **{key: value for key, value in given.items() if value}},
        **({} if request.seed is None else {"seed": request.seed}),
    }
    config = parse_config(values, source)
    if len(config.models) != 1:
        names = ", ".join(entry.name for entry in config.models)
        raise UserError(f"{source} has several models ({names}): `generate` makes data of one, the workflow of all")
    check_time_limit(config)
    return config


def _is_there(folder: Path, index: int, config: Config, model: str) -> bool:
    """Whether a shard of this very recipe is there.

    Raises:
        UserError: there is one of another recipe.
    """
    record = folder / record_file(index)
    if not record.exists():
        return False
    if ShardRecord.read(record).lineage_id != lineage_id(config.data_recipe(model)):
        raise UserError(
            f"{folder} holds data that were made with other settings or another seed: choose another --output"
        )
    return is_whole(folder, index)
