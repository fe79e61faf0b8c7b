"""From the options of ``jaxtrain`` and ``torchtrain`` to the task that the workflow's rules have too."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lanline.commands.data_source import Source, find_data
from lanline.commands.options import note_unused_tracking_options
from lanline.commands.training_plan import Plan, read_plan
from lanline.config import Config, Framework
from lanline.dataset.checking import Given, check_training_data
from lanline.dataset.content import content_ids
from lanline.dataset.foreign import as_shard, model_of
from lanline.dataset.shards import read_origin
from lanline.errors import UserError
from lanline.files import emptied_if_refused, sha256_json
from lanline.lineage.records import unfinished_run
from lanline.logs import say
from lanline.networks.specification import make_spec
from lanline.paths import NetworkBase, run_name
from lanline.sidecars import Dataset, Experiment, Experiments
from lanline.tracking.mlflow.store import Store, connect, experiment_name, resolve_store
from lanline.training.reader import pieces_of
from lanline.training_stage import TrainingTask, train_network

# Sections of a configuration that say how a workflow makes and judges data; a command is given its data.
LEFT_OUT = frozenset({"seed", "data", "evaluation"})


@dataclass(frozen=True)
class Request:
    """The options of a training command; see `lanline.commands.train`."""

    framework: Framework
    networks_path_base: Path
    config_path: Path | None
    training_data_folder: Path | None
    network_id: int
    seed: int | None
    threads: int
    export_onnx: bool
    mlflow_on: bool
    tracking_uri: str | None
    artifact_location: str | None
    experiment_name: str | None
    run_name: str | None
    run_id: str | None
    data_generation_experiment_id: str | None
    dataset_id: str | None
    accept_data_problems: bool = False


def run_training(request: Request, dry_run: bool) -> None:
    """Train the network that was asked for, or with ``dry_run`` only check that it could be.

    Raises:
        UserError: as the stages do.
    """
    plan = read_plan(request.config_path, request.framework, request.network_id, request.seed)
    asked = request.mlflow_on or request.run_name or request.run_id or request.data_generation_experiment_id
    tracked = bool(asked or plan.values.get("mlflow_tracking"))
    given = {"uri": request.tracking_uri, "artifact_location": request.artifact_location}
    note_unused_tracking_options(tracked, **given)
    tracking = {**plan.tracking, **{key: value for key, value in given.items() if value}}
    store = resolve_store(tracking.get("uri"), tracking.get("artifact_location")) if tracked else None
    if request.run_id:
        unfinished_run(connect(store), store, request.run_id)  # a mistake is better known before anything is written
    folder = request.training_data_folder
    if folder is None and request.data_generation_experiment_id is None:
        folder = plan.data_folder
    source = find_data(folder, request.data_generation_experiment_id, request.dataset_id, store)
    recorded = source.recorded
    model = plan.model((recorded and recorded.model) or model_of(source.files[0]))
    configured = plan.values.get("mlflow_experiment_name")
    experiment = experiment_name(request.experiment_name, configured, f"{model}-training")
    config = plan.config(model, tracked, experiment, tracking)
    if request.accept_data_problems:
        config = config.model_copy(update={"data": config.data.model_copy(update={"accept_problems": True})})
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            _describe(_make_task(request, plan, config, source, store, Path(scratch), every_file=False), config)
        return
    task = _make_task(request, plan, config, source, store, request.networks_path_base, every_file=True)
    train_network(config, task)
    say(f"{task.run}: files in {task.paths.network_folder(task.run)}")


def _make_task(
    request: Request, plan: Plan, config: Config, source: Source, store: Store | None, base: Path, every_file: bool
) -> TrainingTask:
    """The task, with pickles turned into shards (``every_file=False``: two of them, to see whether they can be)."""
    network, (model,) = config.networks[plan.network], [entry.name for entry in config.models]
    spec = make_spec(network, config.model(model))
    training, validation = plan.split(source.files, config.data)
    used = sorted([*training, *validation])
    recorded = source.recorded
    ids = (recorded.dataset_id, recorded.lineage_id) if recorded else content_ids(used)
    identity = {
        "network": network.model_dump(mode="json", exclude={"training"}),
        "training": config.training_of(network.name).model_dump(mode="json", exclude={"frameworks", "seeds"}),
        "dataset_id": ids[0],
        "files": [[path.name for path in files] for files in (training, validation)],
    }
    # Part of the name, so that other settings never overwrite a network, and the same ones find their checkpoint.
    run = f"{run_name(model, network.name, request.framework, plan.seed)}-{sha256_json(identity)[:8]}"
    paths = NetworkBase(run, base / network.network_type / model)
    opened = used if every_file else [training[0], validation[0]]
    floor, folder = config.training_of(network.name).label_floor, paths.converted(run)
    with emptied_if_refused(folder):
        shards = {path: as_shard(path, folder, spec.network_type, spec.params, floor) for path in opened}
        _check_models(list(shards.values()), model)
        rows = sum(len(piece) for piece in pieces_of(list(shards.values()), spec))
        given = Given(source.folder, *_converted(shards, training, validation), network.network_type, model)
        accepted = check_training_data(given, config.data.accept_problems)
    dataset = _dataset(source, model, ids, len(used), rows, store).model_copy(update={"accepted_problems": accepted})
    return TrainingTask(
        run=run,
        model=model,
        network=network.name,
        framework=request.framework,
        seed=plan.seed,
        training_files=training,
        validation_files=validation,
        dataset=dataset,
        experiments=Experiments(
            tracking_uri=store.shown if store else None,
            data_generation=Experiment(name=dataset.experiment_name, experiment_id=dataset.experiment_id),
            training=Experiment(name=config.mlflow_experiment_name, experiment_id=None),
        ),
        paths=paths,
        threads=request.threads,
        title=request.run_name,
        mlflow_run_id=request.run_id,
        export_onnx=request.export_onnx,
        left_out=LEFT_OUT,
    )


def _converted(shards: dict[Path, Path], *lists: Sequence[Path]) -> list[list[Path]]:
    return [[shards[path] for path in files if path in shards] for files in lists]


def _check_models(shards: Sequence[Path], model: str) -> None:
    for path in shards:
        found = read_origin(path)["model"]
        if found not in (model, None):
            raise UserError(f"{path.name} holds data of {found}, expected {model}")


def _dataset(source: Source, model: str, ids: tuple[str, str], files: int, rows: int, store: Store | None) -> Dataset:
    recorded = source.recorded
    return Dataset(
        model=model,
        dataset_id=ids[0],
        lineage_id=ids[1],
        folder=str(source.folder),
        files=files,
        rows=rows,
        tracking_uri=store.shown if recorded else None,
        experiment_id=recorded.experiment_id if recorded else None,
        experiment_name="",
        run_id=recorded.run.run_id if recorded else None,
        tracking_key=recorded.run.key if recorded else None,
    )


def _describe(task: TrainingTask, config: Config) -> None:
    network, settings = config.network(task.network), config.training_of(task.network)
    say(
        f"dry run: {task.run} would train {network.hidden_layers} with {task.framework} on {settings.device}\n"
        f"  {len(task.training_files)} files to train on, {len(task.validation_files)} to validate on, "
        f"in {task.dataset.folder}\n"
        f"  model {task.model}, data set {task.dataset.dataset_id}\n"
        f"  {settings.epochs} epochs, batches of {settings.batch_size} rows\n"
        "  nothing was trained or written"
    )
