"""Where the files of a run lie. Rules and stages ask here; names inside a report folder stand where they are written.

Arguments may be Snakemake wildcards: ``paths.shard("{model}", "{shard}")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INVENTORY = "generated_files_inventory.json"  # the field's name: ssm-simulators and LANfactory use it too
SHARD_RECORDS = "shard_records.json"  # of each shard: engine, machine, job, libraries; in a data set's report


@dataclass(frozen=True)
class Paths:
    """The files of the run called ``name``, relative to the working directory."""

    name: str

    @property
    def results(self) -> Path:
        return Path("results") / self.name

    @property
    def reports(self) -> Path:
        return Path("reports") / self.name

    # --- one model -----------------------------------------------------------------------------------------------
    def experiments(self, model: str) -> Path:
        """Sidecar with the MLflow experiments of a model."""
        return self.results / model / "experiments.json"

    def data_folder(self, model: str) -> Path:
        return self.results / model / "data"

    def shard(self, model: str, shard: str) -> Path:
        return self.data_folder(model) / shard_file(shard)

    def shard_record(self, model: str, shard: str) -> Path:
        return self.data_folder(model) / record_file(shard)

    def unfinished(self, model: str) -> Path:
        """Shards of jobs that run or were killed; not outputs of the rule, so that they outlive a failed job."""
        return self.results / model / "unfinished"

    def inventory(self, model: str) -> Path:
        """List of the data set's files as MLflow holds it too."""
        return self.results / model / INVENTORY

    def dataset(self, model: str) -> Path:
        """Sidecar of the data set."""
        return self.results / model / "dataset.json"

    def validation(self, model: str) -> Path:
        return self.results / model / "validation.json"

    def data_report(self, model: str) -> Path:
        """Folder with the record of the data set's run."""
        return self.reports / f"{model}-data"

    # --- one network ---------------------------------------------------------------------------------------------
    def network_folder(self, run: str) -> Path:
        """Artifacts of one training; ``run`` is made by :func:`run_name`."""
        return self.results / "networks" / run

    def onnx(self, run: str) -> Path:
        return self.network_folder(run) / "model.onnx"

    def history(self, run: str) -> Path:
        """Losses of each epoch."""
        return self.network_folder(run) / "history.csv"

    def run(self, run: str) -> Path:
        """Sidecar of a training run."""
        return self.network_folder(run) / "run.json"

    def lanfactory_folder(self, run: str) -> Path:
        """Where the files for LANfactory's loaders lie."""
        return self.network_folder(run) / "lanfactory"

    def converted(self, run: str) -> Path:
        """Shards made from pickles, while a training needs them."""
        return self.network_folder(run) / "shards"

    def checkpoint(self, run: str) -> Path:
        """State of a training in progress; not an output of its rule, so that it outlives a failed job."""
        return self.results / "checkpoints" / f"{run}.safetensors"

    def training_report(self, run: str) -> Path:
        """Folder with config.yaml, metrics.json and the journal of a training."""
        return self.reports / run / "training"

    def evaluation_report(self, run: str) -> Path:
        """Folder with config.yaml, metrics.json and figures/ of an evaluation."""
        return self.reports / run / "evaluation"

    # --- the whole run -------------------------------------------------------------------------------------------
    def summary(self, suffix: str) -> Path:
        """Table of all networks, as md, json, html for the report, or txt for the terminal."""
        return self.reports / f"summary.{suffix}"

    def training_curves(self, model: str, network: str) -> Path:
        return self.reports / "figures" / f"training-{model}-{network}.png"

    def log(self, rule: str, job: str) -> Path:
        return Path("logs") / self.name / rule / f"{job}.log"

    def benchmark(self, rule: str, job: str) -> Path:
        return Path("logs") / self.name / rule / f"{job}.benchmark.tsv"


@dataclass(frozen=True)
class DataFolder(Paths):
    """The files of a data set that a command was asked for: all of them lie in the folder ``output``."""

    output: Path

    def data_folder(self, model: str) -> Path:
        return self.output

    def unfinished(self, model: str) -> Path:
        return self.output / "unfinished"

    def inventory(self, model: str) -> Path:
        return self.output / INVENTORY

    def dataset(self, model: str) -> Path:
        return self.output / "dataset.json"

    def data_report(self, model: str) -> Path:
        return self.output / "report"


@dataclass(frozen=True)
class NetworkBase(Paths):
    """The files of a training that a command was asked for: all of them lie in the folder ``base``."""

    base: Path

    def network_folder(self, run: str) -> Path:
        return self.base / run

    def lanfactory_folder(self, run: str) -> Path:
        return self.base  # where LANfactory itself puts them

    def checkpoint(self, run: str) -> Path:
        return self.network_folder(run) / "checkpoint.safetensors"

    def training_report(self, run: str) -> Path:
        return self.network_folder(run) / "report"


def shard_label(index: int) -> str:
    """The five digits by which a shard's files are named."""
    return f"{index:05d}"


def shard_file(shard: int | str) -> str:
    """Name of a shard, by its number or its label (or a wildcard)."""
    return f"shard-{shard_label(shard) if isinstance(shard, int) else shard}.safetensors"


def record_file(shard: int | str) -> str:
    """Name of a shard's record, which lies beside it."""
    return f"shard-{shard_label(shard) if isinstance(shard, int) else shard}.json"


def shard_groups(shards: int, per_job: int) -> tuple[list[str], list[str]]:
    """Labels of shards as the groups that jobs make: the first digits of each group, and the last ones of its members.

    ``shard_groups(20, 10)`` gives ``["0000", "0001"]`` and ``["0", ..., "9"]``; groups of one have no last digits.
    So one wildcard stands for a group, and a shard has the same name in a group of any size.

    Args:
        shards: number of shards, a multiple of ``per_job``.
        per_job: shards in a group: 1, 10, 100 or 1000.
    """
    digits = len(str(per_job)) - 1
    first = [shard_label(index)[: 5 - digits] for index in range(0, shards, per_job)]
    return first, [shard_label(index)[5 - digits :] for index in range(per_job)]


def shards_of_group(group: str, per_job: int) -> range:
    """Numbers of the shards in a group that `shard_groups` named."""
    return range(int(group) * per_job, (int(group) + 1) * per_job)


def run_name(model: str, network: str, framework: str, seed: int | str) -> str:
    """Name of one training in file names and in MLflow: ``ddm-lan-torch-s1``."""
    return f"{model}-{network}-{framework}-s{seed}"
