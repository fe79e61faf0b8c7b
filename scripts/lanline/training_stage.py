"""Training one network: what rules and commands call."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.config import Config, Framework, Training
from lanline.dataset.content import validated
from lanline.dataset.foreign import as_shard
from lanline.dataset.problems import marked
from lanline.experiment import BaseExperiment, flatten
from lanline.files import sha256_json, write_json
from lanline.logs import say, show_progress
from lanline.networks.artifacts import FILES, write_network
from lanline.networks.lanfactory_files import write_lanfactory_files
from lanline.networks.specification import NetworkSpec, make_spec
from lanline.paths import Paths, run_name
from lanline.sidecars import Dataset, Experiments, Run
from lanline.tracking.description import describe_training
from lanline.tracking.lineage import lineage_links, lineage_tags, log_training_data
from lanline.tracking.mlflow.store import Store, store_of
from lanline.training.job import Job, Trained, made_with
from lanline.training.loop import train
from lanline.training.losses import loss_name


@dataclass(frozen=True)
class TrainingTask:
    """Which network is trained, on what.

    Attributes:
        run: name of the training; its files are named by it.
        model: name of the model.
        network: name of the network specification.
        framework: torch or jax.
        seed: of the initial weights and of the order of rows.
        training_files: shards, or pickles of ssm-simulators, to train on.
        validation_files: the same, to validate on.
        dataset: the data set that they are of.
        experiments: of the model.
        paths: where the files of the training lie.
        threads: cores to use.
        title: name of the run in MLflow; default: ``run``.
        mlflow_run_id: an unfinished MLflow run to go on with.
        export_onnx: whether to keep the ONNX file.
        left_out: sections of the configuration that do not apply, because the data did not come from it.
    """

    run: str
    model: str
    network: str
    framework: Framework
    seed: int
    training_files: tuple[Path, ...]
    validation_files: tuple[Path, ...]
    dataset: Dataset
    experiments: Experiments
    paths: Paths
    threads: int
    title: str | None = None
    mlflow_run_id: str | None = None
    export_onnx: bool = True
    left_out: frozenset[str] = frozenset()


class TrainNetwork(BaseExperiment):
    """The training of one network, recorded as an experiment."""

    def __init__(self, config: Config, task: TrainingTask) -> None:
        super().__init__(config)
        self.task = task
        self.paths = task.paths
        self.on_outage = config.tracking.on_outage
        self.spec = make_spec(config.network(task.network), config.model(task.model))
        self.settings = config.training_of(task.network)

    # --- the four steps ------------------------------------------------------------------------------------------
    def prepare_data(self) -> tuple[list[Path], list[Path]]:
        """Files to train on, and files to validate on; pickles become shards first."""
        log_training_data(self.tracking, self.task.dataset)
        used = self.report_folder / "files_used.json"
        write_json(used, self.files_used())
        self.tracking.log_artifact(used)
        folder = self.paths.converted(self.task.run)
        training, validation = (
            [
                as_shard(path, folder, self.spec.network_type, self.spec.params, self.settings.label_floor)
                for path in files
            ]
            for files in (self.task.training_files, self.task.validation_files)
        )
        return training, validation

    def files_used(self) -> dict[str, list[str]]:
        """Names of the files, by what they are used for."""
        files = {"training": self.task.training_files, "validation": self.task.validation_files}
        return {purpose: [path.name for path in paths] for purpose, paths in files.items()}

    def build_model(self) -> NetworkSpec:
        return self.spec

    def train(self, model: NetworkSpec, data: tuple[list[Path], list[Path]]) -> Trained:
        training, validation = data
        job = Job(
            spec=model,
            settings=self.settings,
            framework=self.task.framework,
            seed=self.task.seed,
            training_files=training,
            validation_files=validation,
            data_id=self.task.dataset.dataset_id,
            threads=self.task.threads,
        )
        checkpoint = self.paths.checkpoint(self.task.run)
        run = self.task.run
        where = "a GPU" if self.settings.device == "gpu" else f"{self.task.threads} CPU thread(s)"
        say(f"{run}: trains in {self.task.framework} on {where}")
        return train(
            job,
            checkpoint,
            on_epoch=self.log_metrics,
            say=lambda line: say(f"{run}: {line}"),
            show=lambda line: show_progress(f"{run}: {line}"),
        )

    def evaluate(self, model: Trained, data: tuple[list[Path], list[Path]]) -> dict[str, float]:
        """Write the network's files, check the ONNX file against the trainer, and sum the training up."""
        folder = self.paths.network_folder(self.task.run)
        identity = {**self.identity(), "tracking_key": self.tracking.key}
        parity = write_network(folder, self.spec, model.weights, identity, model.history, model.forward, model.sample)
        if not self.task.export_onnx:  # it was needed to check the weights
            (folder / "model.onnx").unlink()
        for name in FILES:
            if (folder / name).exists():
                self.tracking.log_artifact(folder / name, "network")
        for path in self._write_lanfactory_files(model):
            self.tracking.log_artifact(path, "training_output")  # LANfactory's name for the folder
        kept = {f"kept_{name}": value for name, value in model.kept.items()}  # beside the curves, not in them
        timings = {f"seconds_{part}": seconds for part, seconds in model.timings.items()}
        return {**kept, "epochs": len(model.history), "onnx_parity": parity, **timings}

    def _write_lanfactory_files(self, model: Trained) -> list[Path]:
        return write_lanfactory_files(
            self.paths.lanfactory_folder(self.task.run),
            self.task.run,
            self.task.framework,
            self.spec,
            model.weights,
            self.settings,
            model.history,
            self.files_used(),
            self.task.dataset.model_dump(mode="json"),
        )

    # --- what is recorded ----------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        return self.task.title or self.task.run

    @property
    def report_folder(self) -> Path:
        return self.paths.training_report(self.task.run)

    @property
    def experiment_name(self) -> str:
        return self.task.experiments.training.name

    def store(self) -> Store | None:
        return store_of(self.config)

    def mlflow_run_id(self) -> str | None:
        return self.task.mlflow_run_id

    def config_values(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude=set(self.task.left_out))

    def params(self) -> dict[str, Any]:
        settings = used_settings(self.settings, self.spec)
        network = self.config.network(self.task.network).model_dump(mode="json", exclude={"training"})
        made = made_with(self.task.framework, self.settings.device, self.task.threads)
        files = {"files_used": sha256_json(self.files_used())}
        return flatten({**self.identity(), **files, **made, "training": settings, "network": network})

    def identity(self) -> dict[str, str]:
        """Where the network comes from; it goes into the ONNX file's metadata too."""
        dataset = self.task.dataset
        problems = {"accepted_problems": marked(dataset.accepted_problems)} if dataset.accepted_problems else {}
        return problems | {
            "run": self.task.run,
            "framework": self.task.framework,
            "seed": str(self.task.seed),
            "dataset_id": dataset.dataset_id,
            "lineage_id": dataset.lineage_id,
        }

    def tags(self) -> dict[str, str]:
        dataset = self.task.dataset
        tags = {"stage": "training", "model": self.task.model, "framework": self.task.framework}
        if dataset.accepted_problems:
            tags["accepted_problems"] = marked(dataset.accepted_problems)
        return tags | lineage_tags(dataset)

    def links(self) -> dict[str, str]:
        return lineage_links(self.task.dataset)

    def description(self) -> str:
        return describe_training(self.task.dataset, self.paths.network_folder(self.task.run))

    def sidecar(self) -> Run:
        """The ids of the finished training."""
        dataset, task = self.task.dataset, self.task
        return Run(
            name=task.run,
            model=task.model,
            network=task.network,
            network_type=self.spec.network_type,
            framework=task.framework,
            seed=task.seed,
            dataset_id=dataset.dataset_id,
            lineage_id=dataset.lineage_id,
            data_generation_run_id=dataset.run_id,
            data_generation_experiment_id=dataset.experiment_id,
            tracking_uri=task.experiments.tracking_uri,
            experiment_id=self.tracking.experiment_id,
            experiment_name=self.experiment_name,
            run_id=self.tracking.run_id,
            tracking_key=self.tracking.key if task.experiments.tracking_uri else None,
            accepted_problems=dataset.accepted_problems or None,
        )


def used_settings(settings: Training, spec: NetworkSpec) -> dict[str, Any]:
    """The settings that a training depends on, without those of other optimizers, schedules and losses."""
    unused = {"frameworks", "seeds"}
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


def split_files(files: Sequence[Path], n_validation: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files to train on, and the first ones by name to validate on, so that a new file does not change them."""
    ordered = sorted(files, key=lambda path: path.name)
    return tuple(ordered[n_validation:]), tuple(ordered[:n_validation])


def workflow_task(config: Config, snakemake: Any, framework: Framework) -> TrainingTask:
    """The task that a rule's script was started for."""
    wildcards = snakemake.wildcards
    shards = [Path(path) for path in snakemake.input.shards]
    training, validation = split_files(shards, config.data.n_validation_shards)
    dataset = validated(Dataset.read(snakemake.input.dataset), shards, Path(snakemake.input.validation))
    return TrainingTask(
        run=run_name(wildcards.model, wildcards.network, framework, wildcards.seed),
        model=wildcards.model,
        network=wildcards.network,
        framework=framework,
        seed=int(wildcards.seed),
        training_files=training,
        validation_files=validation,
        dataset=dataset,
        experiments=Experiments.read(snakemake.input.experiments),
        paths=Paths(config.name),
        threads=snakemake.threads,
    )


def train_network(config: Config, task: TrainingTask) -> None:
    """Train one network and write its folder, its report, and last of all its sidecar with the ids of its run."""
    training = TrainNetwork(config, task)
    training.run()
    training.sidecar().write(task.paths.run(task.run))
    # Only now: whoever is killed before goes on from the checkpoint.
    task.paths.checkpoint(task.run).unlink(missing_ok=True)
    if (converted := task.paths.converted(task.run)).exists():
        shutil.rmtree(converted)
