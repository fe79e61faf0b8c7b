"""The jobs of a configuration: which trainings there are, what one reads and writes, what a job needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from lanline.cluster.resources import Effort
from lanline.config import WHICH_TRAININGS, Config
from lanline.paths import Paths, run_name, shard_label

EffortOf = Callable[[Config, Mapping[str, str], int], Effort]


def shard_labels(config: Config) -> list[str]:
    return [shard_label(index) for index in range(config.data.shards)]


def training_names(config: Config, framework: str | None = None) -> list[str]:
    """Names of all trainings of the configuration, in one framework or in all."""
    models = [entry.name for entry in config.models]
    networks = [network.name for network in config.networks]
    frameworks = [framework] if framework else config.training.frameworks
    return [run_name(*each) for each in product(models, networks, frameworks, config.training.seeds)]


def resources_for(config: Config, effort_of: EffortOf) -> dict[str, Callable[..., int]]:
    """Memory and time limit of a rule's jobs: see `lanline.cluster.resources`. Each attempt requests more."""

    def part(name: str) -> Callable[..., int]:
        return lambda wildcards, threads, attempt: attempt * getattr(effort_of(config, wildcards, threads), name)

    return {name: part(name) for name in ("mem_mb", "runtime")}


def training_input(config: Config, paths: Paths) -> dict[str, Any]:
    """What a training reads, in both frameworks; with the wildcard ``{model}``."""
    return {
        "shards": [paths.shard("{model}", shard) for shard in shard_labels(config)],
        "dataset": paths.dataset("{model}"),
        "validation": paths.validation("{model}"),
        "experiments": paths.experiments("{model}"),
    }


def training_output(config: Config, paths: Paths, framework: str) -> dict[str, list[Path]]:
    """What a job of trainings writes; with the wildcards of `training_job`."""
    seeds = config.training.seeds if config.training.seeds_per_job == "all" else ["{seed}"]
    runs = [run_name("{model}", "{network}", framework, seed) for seed in seeds]
    return {
        "onnx": [paths.onnx(run) for run in runs],
        "weights": [paths.network_folder(run) / "weights.safetensors" for run in runs],
        "network": [paths.network_folder(run) / "network.json" for run in runs],
        "hssm": [paths.network_folder(run) / "hssm.json" for run in runs],
        "history": [paths.history(run) for run in runs],
        "run": [paths.run(run) for run in runs],
        "config": [paths.training_report(run) / "config.yaml" for run in runs],
        "metrics": [paths.training_report(run) / "metrics.json" for run in runs],
    }


def training_job(config: Config) -> str:
    """Name of a job of trainings in its log; with all wildcards: one of all seeds has no ``{seed}``."""
    return "{model}-{network}" if config.training.seeds_per_job == "all" else "{model}-{network}-s{seed}"


def data_settings(config: Config, model: str) -> dict[str, Any]:
    """The recipe of a model's shards with its bounds in the model's own order: Snakemake sees any order as a change."""
    recipe = config.data_recipe(model)
    bounds = recipe["bounds"]
    return {**recipe, "bounds": {param: bounds[param] for param in config.model(model).params if param in bounds}}


def training_settings(config: Config, network: str) -> dict[str, Any]:
    """What decides the weights, other than the data; the lists of seeds and frameworks do not."""
    without = WHICH_TRAININGS | {"checkpoint_minutes", "device"}
    return {
        "network": config.network(network).model_dump(exclude={"training"}),
        "training": config.training_of(network).model_dump(exclude=without),
        "validation_shards": config.data.n_validation_shards,
    }
