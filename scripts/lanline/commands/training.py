"""`lanline train`: from a configuration, data and options to the stage that the workflow's rules run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lanline.commands.data_source import DataOptions, Source, find_data
from lanline.commands.options import TrackingOptions
from lanline.commands.training_plan import Plan
from lanline.config import WHICH_TRAININGS, Config, ModelEntry
from lanline.dataset.checking import Given, check_training_data
from lanline.dataset.content import SHARD_SUFFIX
from lanline.dataset.foreign import as_shard
from lanline.dataset.recipe import read_recipe
from lanline.dataset.shards import read_origin
from lanline.errors import UserError
from lanline.files import emptied_if_refused, sha256_json
from lanline.logs import say
from lanline.networks.specification import make_spec
from lanline.paths import NetworkBase, run_name
from lanline.stages.train_network import Recording, TrainingData, TrainingRequest, threads_for, train_networks
from lanline.tracking.mlflow.store import connect_to_read, experiment_name, resolve_store
from lanline.tracking.mlflow.tracked import unfinished_run
from lanline.training.reader import pieces_of

# Sections of a configuration that say how a workflow makes and judges data; a command is given its data.
LEFT_OUT = frozenset({"seed", "data", "evaluation"})


@dataclass(frozen=True)
class Output:
    """Where a command's network goes, and how it is made.

    Attributes:
        base: folder for networks: they go to ``<base>/<network type>/<model>/``.
        threads: cores to use.
        export_onnx: whether to keep the ONNX file.
    """

    base: Path
    threads: int
    export_onnx: bool


def run_training(plan: Plan, wanted: DataOptions, tracking: TrackingOptions, output: Output, dry_run: bool) -> None:
    """Train the network that was asked for, or with ``dry_run`` only check that it could be.

    Raises:
        UserError: as the stages do.
    """
    options = tracking.configure(plan.values, plan.source)
    settings = options["tracking"]
    tracked = options["mlflow_tracking"]
    store = resolve_store(settings.get("uri"), settings.get("artifact_location")) if tracked else None
    if store and tracking.run_id:  # mistakes are reported before anything is written
        unfinished_run(connect_to_read(store), store, tracking.run_id)
    if wanted.folder is None and wanted.experiment_id is None:
        wanted = replace(wanted, folder=plan.data_folder)
    source = find_data(wanted, store)
    model = plan.model(source.model)
    experiment = experiment_name(tracking.experiment, plan.values.get("mlflow_experiment_name"), f"{model}-training")
    config = plan.config(model, {**options, "mlflow_experiment_name": experiment})
    if wanted.accept_problems:
        config = config.model_copy(update={"data": config.data.model_copy(update={"accept_problems": True})})
    recording = Recording(experiment, tracking.run_name, tracking.run_id, LEFT_OUT)
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            output = replace(output, base=Path(scratch))
            _describe(training_request(plan, config, source, recording, output, every_file=False))
        return
    request = training_request(plan, config, source, recording, output, every_file=True)
    train_networks([request])
    say(f"{request.run}: files in {request.paths.network_folder(request.run)}")


def training_request(
    plan: Plan, config: Config, source: Source, recording: Recording, output: Output, every_file: bool
) -> TrainingRequest:
    """The request, with pickles turned into shards (``every_file=False``: two of them, to see whether they can be).

    Raises:
        UserError: there are fewer than two files, one cannot be read, or is of another model.
    """
    training, validation = plan.split(source.files, config.data)
    used = sorted([*training, *validation])
    config = with_bounds_of(used[0], config)
    network, model = config.networks[plan.network], config.models[0].name
    spec = make_spec(network, config.model(model))
    ids = source.ids(used)
    identity = {
        "network": network.model_dump(mode="json", exclude={"training"}),
        "training": config.training_of(network.name).model_dump(mode="json", exclude=WHICH_TRAININGS),
        "bounds": config.models[0].model_dump(mode="json")["bounds"],
        "dataset_id": ids.dataset_id,
        "files": [[path.name for path in files] for files in (training, validation)],
    }
    # Part of the name, so that other settings never overwrite a network, and the same ones find their checkpoint.
    run = f"{run_name(model, network.name, plan.framework, plan.seed)}-{sha256_json(identity)[:8]}"
    paths = NetworkBase(run, output.base / network.network_type / model)
    opened = used if every_file else [training[0], validation[0]]
    floor, folder = config.training_of(network.name).label_floor, paths.converted(run)
    with emptied_if_refused(folder):
        shards = {path: as_shard(path, folder, spec.network_type, spec.params, floor) for path in opened}
        _check_models(list(shards.values()), model)
        rows = sum(len(piece) for piece in pieces_of(list(shards.values()), spec))
        halves = [[shards[path] for path in files if path in shards] for files in (training, validation)]
        given = Given(source.folder, halves[0], halves[1], network.network_type, model)
        accepted = check_training_data(given, config.data.accept_problems)
    dataset = source.dataset(model, ids, len(used), rows).model_copy(update={"accepted_problems": accepted})
    return TrainingRequest(
        config=config,
        run=run,
        model=model,
        network=network.name,
        framework=plan.framework,
        seed=plan.seed,
        data=TrainingData(training, validation, dataset),
        paths=paths,
        recording=recording,
        threads=threads_for(config.training_of(network.name), output.threads),
        export_onnx=output.export_onnx,
    )


def with_bounds_of(path: Path, config: Config) -> Config:
    """The configuration with the bounds that a shard's parameters were drawn from: a network knows no others, whatever
    the file of --config-path says. Pickles do not say theirs."""
    if path.suffix != SHARD_SUFFIX:
        return config
    recipe, entry = read_recipe(path), config.models[0]
    if recipe.model.name != entry.name or recipe.values["bounds"] == entry.model_dump(mode="json")["bounds"]:
        return config
    if entry.bounds:
        say(f"the bounds are those that {path.name} was made with, not those of the configuration")
    own = ModelEntry(name=entry.name, bounds={name: tuple(pair) for name, pair in recipe.values["bounds"].items()})
    return config.model_copy(update={"models": [own]})


def _check_models(shards: Sequence[Path], model: str) -> None:
    for path in shards:
        found = read_origin(path)["model"]
        if found not in (model, None):
            raise UserError(f"{path.name} holds data of {found}, expected {model}")


def _describe(request: TrainingRequest) -> None:
    settings, data = request.settings, request.data
    layers = request.config.network(request.network).hidden_layers
    say(
        f"dry run: {request.run} would train {layers} with {request.framework} on {settings.device}\n"
        f"  {len(data.training)} files to train on, {len(data.validation)} to validate on, in {data.dataset.folder}\n"
        f"  model {request.model}, data set {data.dataset.dataset_id}\n"
        f"  {settings.epochs} epochs, batches of {settings.batch_size} rows\n"
        "  nothing was trained or written"
    )
