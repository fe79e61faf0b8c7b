"""Training one network: what rules and commands call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.config import Config, Framework
from lanline.data_stages import store_of
from lanline.experiment import BaseExperiment, flatten
from lanline.files import write_json
from lanline.logs import say
from lanline.networks.artifacts import write_network
from lanline.networks.specification import NetworkSpec, make_spec
from lanline.paths import Paths, run_name
from lanline.sidecars import Dataset, Experiments, Run
from lanline.tracking.description import describe_training
from lanline.tracking.lineage import lineage_links, lineage_tags, log_training_data
from lanline.tracking.store import Store
from lanline.training.loop import Job, Trained, train


@dataclass(frozen=True)
class TrainingTask:
    """Which network is trained, on what."""

    model: str
    network: str
    framework: Framework
    seed: int
    shards: tuple[Path, ...]
    dataset: Dataset
    experiments: Experiments
    threads: int

    @property
    def run(self) -> str:
        return run_name(self.model, self.network, self.framework, self.seed)


class TrainNetwork(BaseExperiment):
    """The training of one network, recorded as an experiment."""

    def __init__(self, config: Config, task: TrainingTask) -> None:
        super().__init__(config)
        self.task = task
        self.paths = Paths(config.name)
        self.on_outage = config.tracking.on_outage

    # --- the four steps ------------------------------------------------------------------------------------------
    def prepare_data(self) -> tuple[list[Path], list[Path]]:
        """Files to train on, and files to validate on."""
        log_training_data(self.tracking, self.task.dataset)
        held_out = self.config.data.n_validation_shards
        files = sorted(self.task.shards)
        validation, training = files[:held_out], files[held_out:]
        used = self.report_folder / "files_used.json"
        write_json(used, {"training": _names(training), "validation": _names(validation)})
        self.tracking.log_artifact(used)
        return training, validation

    def build_model(self) -> NetworkSpec:
        return make_spec(self.config.network(self.task.network), self.config.model(self.task.model))

    def train(self, model: NetworkSpec, data: tuple[list[Path], list[Path]]) -> Trained:
        training, validation = data
        self.spec = model
        job = Job(
            spec=model,
            settings=self.config.training,
            framework=self.task.framework,
            seed=self.task.seed,
            training_files=training,
            validation_files=validation,
            data_id=self.task.dataset.dataset_id,
            threads=self.task.threads,
        )
        checkpoint = self.paths.checkpoint(self.task.run)
        return train(job, checkpoint, on_epoch=self.log_metrics, say=lambda line: say(f"{self.task.run}: {line}"))

    def evaluate(self, model: Trained, data: tuple[list[Path], list[Path]]) -> dict[str, float]:
        """Write the network's files, check the ONNX file against the trainer, and sum the training up."""
        folder = self.paths.network_folder(self.task.run)
        identity = {**self.identity(), "tracking_key": self.tracking.key}
        parity = write_network(folder, self.spec, model.weights, identity, model.history, model.forward, model.sample)
        self.tracking.log_artifact(folder / "model.onnx", "network")
        self.tracking.log_artifact(folder / "weights.safetensors", "network")
        self.tracking.log_artifact(folder / "network.json", "network")
        self.tracking.log_artifact(folder / "history.csv", "network")
        last = {key: value for key, value in model.history[-1].items() if key != "epoch"}
        timings = {f"seconds_{part}": seconds for part, seconds in model.timings.items()}
        return {**last, "epochs": len(model.history), "onnx_parity": parity, **timings}

    # --- what is recorded ----------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        return self.task.run

    @property
    def report_folder(self) -> Path:
        return self.paths.training_report(self.task.run)

    @property
    def experiment_name(self) -> str:
        return self.task.experiments.training.name

    def store(self) -> Store | None:
        return store_of(self.config)

    def params(self) -> dict[str, Any]:
        settings = self.config.training.model_dump(mode="json", exclude={"frameworks", "seeds"})
        network = self.config.network(self.task.network).model_dump(mode="json")
        return flatten({**self.identity(), "training": settings, "network": network})

    def identity(self) -> dict[str, str]:
        """Where the network comes from; it goes into the ONNX file's metadata too."""
        dataset = self.task.dataset
        return {
            "run": self.task.run,
            "framework": self.task.framework,
            "seed": str(self.task.seed),
            "dataset_id": dataset.dataset_id,
            "lineage_id": dataset.lineage_id,
        }

    def tags(self) -> dict[str, str]:
        return {"stage": "training", "model": self.task.model, "framework": self.task.framework} | lineage_tags(
            self.task.dataset
        )

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
        )


def _names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def workflow_task(snakemake: Any, framework: Framework) -> TrainingTask:
    """The task that a rule's script was started for."""
    wildcards = snakemake.wildcards
    return TrainingTask(
        model=wildcards.model,
        network=wildcards.network,
        framework=framework,
        seed=int(wildcards.seed),
        shards=tuple(map(Path, snakemake.input.shards)),
        dataset=Dataset.read(snakemake.input.dataset),
        experiments=Experiments.read(snakemake.input.experiments),
        threads=snakemake.threads,
    )


def train_network(config: Config, task: TrainingTask) -> Run:
    """Train one network, write its folder and report, and give the ids of its run."""
    training = TrainNetwork(config, task)
    training.run()
    training.paths.checkpoint(task.run).unlink(missing_ok=True)
    return training.sidecar()
