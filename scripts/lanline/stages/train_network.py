"""Stage train_network (rules train_torch and train_jax): networks, each from its files of data to its sidecar."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.cluster.cores import capped_threads
from lanline.config import WHICH_TRAININGS, Config, Framework, Training
from lanline.dataset.content import validated
from lanline.dataset.foreign import as_shard
from lanline.dataset.problems import marked
from lanline.errors import UserError
from lanline.experiment import flatten
from lanline.files import sha256_json, write_config, write_json
from lanline.logs import note, say, show_progress
from lanline.networks.artifacts import FILES, write_hssm_files, write_network
from lanline.networks.lanfactory_files import why_not, write_lanfactory_files
from lanline.networks.specification import NetworkSpec, make_spec
from lanline.paths import Paths, run_name, shard_label
from lanline.sidecars import DatasetSidecar, TrainingSidecar
from lanline.stages.script import RuleJob
from lanline.stages.trained_on import describe_training, lineage_links, lineage_tags, log_training_data
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.recorder import RunRecorder
from lanline.tracking.mlflow.store import store_of
from lanline.training.job import Job, Trained, made_with
from lanline.training.loop import train
from lanline.training.losses import loss_name


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on.

    Attributes:
        training: shards, or pickles of ssm-simulators, to train on.
        validation: the same, to validate on.
        dataset: the data set that they are of.
    """

    training: tuple[Path, ...]
    validation: tuple[Path, ...]
    dataset: DatasetSidecar

    def names(self) -> dict[str, list[str]]:
        """Names of the files, by what they are used for."""
        return {
            "training": [path.name for path in self.training],
            "validation": [path.name for path in self.validation],
        }


@dataclass(frozen=True)
class Recording:
    """How a training is recorded.

    Attributes:
        experiment: MLflow experiment.
        title: name of the run in MLflow; default: that of the training.
        run_id: an unfinished MLflow run to resume.
        left_out: sections of the configuration that do not apply, because the data did not come from it.
    """

    experiment: str
    title: str | None = None
    run_id: str | None = None
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrainingRequest:
    """Which network is trained, on what.

    Attributes:
        config: the run's configuration.
        run: name of the training; its files are named by it.
        model: name of the model.
        network: name of the network specification.
        framework: torch or jax.
        seed: of the initial weights and of the order of rows.
        data: the files.
        paths: where the files of the training go.
        recording: how it is recorded.
        threads: cores to use.
        export_onnx: whether to keep the ONNX file.
    """

    config: Config
    run: str
    model: str
    network: str
    framework: Framework
    seed: int
    data: TrainingData
    paths: Paths
    recording: Recording
    threads: int
    export_onnx: bool = True

    @property
    def spec(self) -> NetworkSpec:
        return make_spec(self.config.network(self.network), self.config.model(self.model))

    @property
    def settings(self) -> Training:
        return self.config.training_of(self.network)

    def identity(self) -> dict[str, str]:
        """Where the network comes from; it goes into the ONNX file's metadata too."""
        problems = self.data.dataset.accepted_problems
        return ({"accepted_problems": marked(problems)} if problems else {}) | {
            "run": self.run,
            "framework": self.framework,
            "seed": str(self.seed),
            "dataset_id": self.data.dataset.dataset_id,
            "lineage_id": self.data.dataset.lineage_id,
        }


def train_networks(requests: Sequence[TrainingRequest]) -> None:
    """Train the networks of one job, one after the other.

    Raises:
        UserError: as `train_network`; those after it are not trained.
        StoreUnavailable: as `train_network`.
    """
    for request in requests:
        try:
            train_network(request)
        except UserError:
            if len(requests) > 1:
                say(f"{request.run} failed (one of {len(requests)} trainings in this job):")
            raise
    # Only now: Snakemake removes what a killed job has finished, and each of its trainings resumes from its checkpoint.
    for request in requests:
        request.paths.checkpoint(request.run).unlink(missing_ok=True)
        shutil.rmtree(request.paths.converted(request.run), ignore_errors=True)


def train_network(request: TrainingRequest) -> None:
    """Train one network and write its folder, its report, and last of all its sidecar with the ids of its run.

    Its checkpoint is left to `train_networks`.

    Raises:
        UserError: a file cannot be read, the framework or device is not available, the loss became NaN or infinite,
            or another process trains this network.
        StoreUnavailable: the store is unreachable, and tracking.on_outage is ``fail`` or a run is to be resumed.
    """
    report, config = request.paths.training_report(request.run), request.config
    with _open_run(
        request, report
    ) as run:  # refused while another run writes to the folder, so nothing is touched before
        (report / "metrics.json").unlink(missing_ok=True)  # those of an earlier run, if this one fails
        write_config(report / "config.yaml", config.model_dump(mode="json", exclude=set(request.recording.left_out)))
        run.log_artifact(report / "config.yaml")
        log_training_data(run, request.data.dataset)
        write_json(report / "files_used.json", request.data.names())
        run.log_artifact(report / "files_used.json")
        trained = _train(request, run)
        metrics = _write_files(request, trained, run)
        run.log_metrics(metrics, run.last_step)  # MLflow shows the last step's value, and the curves have these names
        write_json(report / "metrics.json", metrics)
        run.log_artifact(report / "metrics.json")
    _sidecar(request, run).write(request.paths.run(request.run))


def _train(request: TrainingRequest, run: RunRecorder) -> Trained:
    spec, converted, settings = request.spec, request.paths.converted(request.run), request.settings
    training, validation = (
        [as_shard(path, converted, spec.network_type, spec.params, settings.label_floor) for path in files]
        for files in (request.data.training, request.data.validation)
    )
    job = Job(
        spec=spec,
        settings=settings,
        framework=request.framework,
        seed=request.seed,
        training_files=training,
        validation_files=validation,
        data_id=request.data.dataset.dataset_id,
        threads=request.threads,
    )
    where = "a GPU" if settings.device == "gpu" else f"{request.threads} CPU thread(s)"
    note(f"{request.run}: training in {request.framework} on {where}")
    return train(
        job,
        request.paths.checkpoint(request.run),
        on_epoch=run.log_metrics,
        say=lambda line: say(f"{request.run}: {line}"),
        note=lambda line: note(f"{request.run}: {line}"),
        show=lambda line: show_progress(f"{request.run}: {line}"),
    )


def _write_files(request: TrainingRequest, trained: Trained, run: RunRecorder) -> dict[str, float]:
    """Write the network's files, check the ONNX file against the trainer, and sum the training up."""
    folder = request.paths.network_folder(request.run)
    identity = {**request.identity(), "tracking_key": run.key}
    parity = write_network(
        folder, request.spec, trained.weights, identity, trained.history, trained.forward, trained.sample
    )
    bounds = request.config.model(request.model).bounds
    for_hssm = write_hssm_files(folder, request.spec, trained.weights, identity, bounds)
    if not request.export_onnx:  # it was needed to check the weights
        for path in (folder / "model.onnx", *for_hssm):
            path.unlink()
    for path in (*(folder / name for name in FILES), *for_hssm):
        if path.exists():
            run.log_artifact(path, "network")
    for path in _write_lanfactory_files(request, trained):
        run.log_artifact(path, "training_output")  # LANfactory's name for the folder
    kept = {f"kept_{name}": value for name, value in trained.kept.items()}  # beside the curves, not in them
    timings = {f"seconds_{part}": seconds for part, seconds in trained.timings.items()}
    metrics = {**kept, "epochs": len(trained.history), "onnx_parity": parity, **timings}
    return {name: float(value) for name, value in metrics.items()}


def _write_lanfactory_files(request: TrainingRequest, trained: Trained) -> list[Path]:
    if reason := why_not(request.spec):
        say(f"{request.run}: no files for LANfactory's loaders: {reason}")
    return write_lanfactory_files(
        request.paths.lanfactory_folder(request.run),
        request.run,
        request.framework,
        request.spec,
        trained.weights,
        request.settings,
        trained.history,
        request.data.names(),
        request.data.dataset.model_dump(mode="json"),
    )


def _sidecar(request: TrainingRequest, run: RunRecorder) -> TrainingSidecar:
    """The ids of the finished training."""
    dataset, store = request.data.dataset, store_of(request.config)
    return TrainingSidecar(
        name=request.run,
        model=request.model,
        network=request.network,
        network_type=request.spec.network_type,
        framework=request.framework,
        seed=request.seed,
        dataset_id=dataset.dataset_id,
        lineage_id=dataset.lineage_id,
        data_generation_run_id=dataset.run_id,
        data_generation_experiment_id=dataset.experiment_id,
        tracking_uri=store.shown if store else None,
        experiment_id=run.experiment_id,
        experiment_name=request.recording.experiment,
        run_id=run.run_id,
        tracking_key=run.key if store else None,
        accepted_problems=dataset.accepted_problems or None,
    )


# --- what is recorded ----------------------------------------------------------------------------------------------
def _open_run(request: TrainingRequest, report: Path) -> RunRecorder:
    recording, dataset = request.recording, request.data.dataset
    tags = {"stage": "training", "model": request.model, "framework": request.framework}
    if dataset.accepted_problems:
        tags["accepted_problems"] = marked(dataset.accepted_problems)
    return open_run(
        report,
        recording.title or request.run,
        recording.experiment,
        store=store_of(request.config),
        on_outage=request.config.tracking.on_outage,
        follow=True,
        params=_params(request),
        tags=tags | lineage_tags(dataset),
        links=lineage_links(dataset),
        description=describe_training(dataset, request.paths.network_folder(request.run)),
        run_id=recording.run_id,
    )


def _params(request: TrainingRequest) -> dict[str, Any]:
    """Settings that determine the network, flat. An unfinished run with the same ones is resumed."""
    settings = used_settings(request.settings, request.spec)
    network = request.config.network(request.network).model_dump(mode="json", exclude={"training"})
    made = made_with(request.framework, request.settings.device, request.threads)
    files = {"files_used": sha256_json(request.data.names())}
    return flatten({**request.identity(), **files, **made, "training": settings, "network": network})


def used_settings(settings: Training, spec: NetworkSpec) -> dict[str, Any]:
    """The settings that a training depends on, without those of other optimizers, schedules and losses."""
    unused = set(WHICH_TRAININGS)
    if settings.optimizer != "sgd":
        unused.add("momentum")
    if settings.schedule != "reduce_on_plateau":
        unused |= {"patience", "threshold", "min_learning_rate"}
    if settings.schedule in ("cosine", "constant"):
        unused.add("decay")
    if spec.gives_probabilities or settings.loss == "mse":
        unused.add("huber_delta")
    if spec.gives_probabilities:
        unused.add("label_floor")
    return settings.model_dump(mode="json", exclude=unused) | {"loss": loss_name(spec, settings)}


def workflow_requests(job: RuleJob, framework: Framework) -> list[TrainingRequest]:
    """What a job of the rule ``train_<framework>`` trains: its wildcards name the network, its data are the model's.

    Without a wildcard ``seed`` it trains one network for each seed of the configuration.
    """
    config, paths, model, network = job.config, job.paths, job.model, job.wildcards["network"]
    seeds = [int(job.wildcards["seed"])] if "seed" in job.wildcards else config.training.seeds
    shards = [paths.shard(model, shard_label(shard)) for shard in range(config.data.shards)]
    training, validation = split_files(shards, config.data.n_validation_shards)
    dataset = validated(DatasetSidecar.read(paths.dataset(model)), shards, paths.validation(model))
    recording = Recording(job.experiments.training.name)
    threads = threads_for(config.training_of(network), job.threads)
    return [
        TrainingRequest(
            config=config,
            run=run_name(model, network, framework, seed),
            model=model,
            network=network,
            framework=framework,
            seed=seed,
            data=TrainingData(training, validation, dataset),
            paths=paths,
            recording=recording,
            threads=threads,
        )
        for seed in seeds
    ]


def threads_for(settings: Training, wanted: int) -> int:
    """Threads that a training uses, of those that it is given: on a CPU no more than there are cores."""
    return wanted if settings.device == "gpu" else capped_threads(wanted)


def split_files(files: Sequence[Path], n_validation: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files to train on, and the first ones by name to validate on, so that a new file does not change them."""
    ordered = sorted(files, key=lambda path: path.name)
    return tuple(ordered[n_validation:]), tuple(ordered[:n_validation])
