"""Training one network: what rules and commands call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.config import Config, Framework
from lanline.data_stages import store_of
from lanline.experiment import BaseExperiment, flatten
from lanline.logs import say
from lanline.files import write_json
from lanline.networks.artifacts import write_network
from lanline.networks.specification import NetworkSpec, make_spec
from lanline.paths import Paths, run_name
from lanline.sidecars import Dataset, Experiments, Run
from lanline.tracking.lineage import lineage_links, lineage_tags, log_training_data
from lanline.tracking.store import Store
from lanline.training.loop import Trained, train
from lanline.training.reader import read_rows

PARITY_ROWS = 1000


@dataclass(frozen=True)
class Job:
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

    def __init__(self, config: Config, job: Job) -> None:
        super().__init__(config)
        self.job = job
        self.paths = Paths(config.name)
        self.on_outage = config.tracking.on_outage

    # --- the four steps ------------------------------------------------------------------------------------------
    def prepare_data(self) -> tuple[list[Path], list[Path]]:
        """Files to train on, and files to validate on."""
        log_training_data(self.tracking, self.job.dataset)
        held_out = self.config.data.n_validation_shards
        files = sorted(self.job.shards)
        validation, training = files[:held_out], files[held_out:]
        used = self.report_folder / "files_used.json"
        write_json(used, {"training": _names(training), "validation": _names(validation)})
        self.tracking.log_artifact(used)
        return training, validation

    def build_model(self) -> NetworkSpec:
        return make_spec(self.config.network(self.job.network), self.config.model(self.job.model))

    def train(self, model: NetworkSpec, data: tuple[list[Path], list[Path]]) -> Trained:
        training, validation = data
        self.spec = model
        return train(
            model,
            self.config.training,
            self.job.framework,
            self.job.seed,
            training,
            validation,
            self.job.dataset.dataset_id,
            self.job.threads,
            self.paths.checkpoint(self.job.run),
            on_epoch=self.log_metrics,
            say=lambda line: say(f"{self.job.run}: {line}"),
        )

    def evaluate(self, model: Trained, data: tuple[list[Path], list[Path]]) -> dict[str, float]:
        """Write the network's files, check the ONNX file against the trainer, and sum the training up."""
        folder = self.paths.network_folder(self.job.run)
        rows = read_rows(data[1][0], self.spec.network_type, len(self.spec.inputs))[:PARITY_ROWS, :-1]
        parity = write_network(
            folder, self.spec, model.weights, self.identity(), model.history, model.forward, rows
        )
        self.tracking.log_artifact(folder / "model.onnx", "network")
        self.tracking.log_artifact(folder / "weights.safetensors", "network")
        self.tracking.log_artifact(folder / "network.json", "network")
        self.tracking.log_artifact(folder / "history.csv", "network")
        self.paths.checkpoint(self.job.run).unlink(missing_ok=True)
        last = {key: value for key, value in model.history[-1].items() if key != "epoch"}
        timings = {f"seconds_{part}": seconds for part, seconds in model.timings.items()}
        return {**last, "epochs": len(model.history), "onnx_parity": parity, **timings}

    # --- what is recorded ----------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        return self.job.run

    @property
    def report_folder(self) -> Path:
        return self.paths.training_report(self.job.run)

    @property
    def experiment_name(self) -> str:
        return self.job.experiments.training.name

    def store(self) -> Store | None:
        return store_of(self.config)

    def params(self) -> dict[str, Any]:
        settings = self.config.training.model_dump(mode="json", exclude={"frameworks", "seeds"})
        network = self.config.network(self.job.network).model_dump(mode="json")
        return flatten({**self.identity(), "training": settings, "network": network})

    def identity(self) -> dict[str, str]:
        """Where the network comes from; it goes into the ONNX file's metadata too."""
        dataset = self.job.dataset
        return {
            "run": self.job.run,
            "framework": self.job.framework,
            "seed": str(self.job.seed),
            "dataset_id": dataset.dataset_id,
            "lineage_id": dataset.lineage_id,
        }

    def tags(self) -> dict[str, str]:
        return {"stage": "training", "model": self.job.model, "framework": self.job.framework} | lineage_tags(
            self.job.dataset
        )

    def links(self) -> dict[str, str]:
        return lineage_links(self.job.dataset)

    def sidecar(self) -> Run:
        """The ids of the finished training."""
        dataset, job = self.job.dataset, self.job
        return Run(
            name=job.run,
            model=job.model,
            network=job.network,
            network_type=self.spec.network_type,
            framework=job.framework,
            seed=job.seed,
            dataset_id=dataset.dataset_id,
            lineage_id=dataset.lineage_id,
            data_generation_run_id=dataset.run_id,
            data_generation_experiment_id=dataset.experiment_id,
            tracking_uri=job.experiments.tracking_uri,
            experiment_id=self.tracking.experiment_id,
            experiment_name=self.experiment_name,
            run_id=self.tracking.run_id,
            tracking_key=self.tracking.key if job.experiments.tracking_uri else None,
        )


def _names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def workflow_job(snakemake: Any, framework: Framework) -> Job:
    """The job that a rule's script was started for."""
    wildcards = snakemake.wildcards
    return Job(
        model=wildcards.model,
        network=wildcards.network,
        framework=framework,
        seed=int(wildcards.seed),
        shards=tuple(map(Path, snakemake.input.shards)),
        dataset=Dataset.read(snakemake.input.dataset),
        experiments=Experiments.read(snakemake.input.experiments),
        threads=snakemake.threads,
    )


def train_network(config: Config, job: Job) -> Run:
    """Train one network, write its folder and report, and give the ids of its run."""
    training = TrainNetwork(config, job)
    training.run()
    return training.sidecar()
