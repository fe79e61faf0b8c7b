"""The resources that a job requests, from the amount of its work: memory and a time limit, generous and never exact.

A limit that turns out too low costs an attempt, and the next one requests more (`rules/common.smk`); one that is far
too high only waits longer in the queue. So the figures below are measured ones, rounded up by a factor of two or more.
The Snakefile imports this module: nothing heavy here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lanline.config import Config
from lanline.engine_facts import has_exact, has_own_simulator

BASE_MINUTES = 10.0  # of a job that has little to do, on a slow file system, and with code to be compiled first
BASE_MB = 1500  # Python, its libraries, and the two Snakemakes above the script (260 MB)
FRAMEWORK_MB = 1500  # PyTorch or JAX, and MLflow in the process beside it
SAFETY = 2.0
# CPU seconds for a theta with 1000 rows, of the slowest models (benchmarks/README.md).
EXACT_SECONDS = 0.01
CONTINUOUS_SECONDS = 2.6  # dev_rlwm: drawn by ssm-simulators without steps, whatever the target
OWN_WALK_SECONDS = 0.2  # in continuous time, by lanline's own simulators
EULER_SECONDS, EULER_LCA_SECONDS = 3.5, 18.0  # many trials of an lca run to the time limit
USUAL_TRAJECTORIES, USUAL_STEP = 20_000, 0.001  # that a simulation's seconds were measured with
ROWS_PER_SECOND, USUAL_WEIGHTS = 50_000, 21_000  # a slow node's core, with a network of this size; ours do 300,000
FURTHER_SECONDS = 30.0  # of a training after the first in its job, beside its epochs: compilation, files, record
HASH_BYTES_PER_SECOND = 100e6  # a shared file system rather than the processor
# In memory at once, whatever the size of a shard: a block of thetas while it is made, a piece while it is checked.
BLOCK_THETAS, CHECKED_ROWS = 16, 200_000
BLOCK_COPIES, PIECE_COPIES = 12, 4  # of float32 rows; a block was measured to take 5.5, most of them in float64
UNIT_BYTES = 16  # of a hidden unit for each row of a batch: sums, activations, gradients
TRIAL_BYTES = 120  # of each simulated trial of a block; 56 measured
EVALUATED_THETAS = 20_000  # a new one for every few of the usual 100,000 trials, and what figures need


@dataclass(frozen=True)
class Effort:
    """Megabytes of memory, and minutes until the job is stopped."""

    mem_mb: int
    runtime: int


def generate_shards(config: Config, wildcards: Mapping[str, str], threads: int) -> Effort:
    """Generating the shards of one group, ``threads`` of them in parallel, each in its own process."""
    workers = min(threads, config.data.shards_per_job)
    rounds = math.ceil(config.data.shards_per_job / workers)
    seconds = rounds * config.data.thetas_per_shard * _seconds_per_theta(config, wildcards["model"])
    return _effort(seconds, workers * BASE_MB, workers * _block_bytes(config, wildcards["model"]))


def validate_training_data(config: Config, wildcards: Mapping[str, str], threads: int) -> Effort:
    """Hashing every shard and computing one block of each again, ``threads`` shards at once; but ssm-simulators
    simulates for one thread at a time."""
    model = wildcards["model"]
    size = _row_bytes(config, model) * config.data.rows_per_shard
    at_once = threads if not _simulates(config, model) or has_own_simulator(model) else 1
    again = BLOCK_THETAS * _seconds_per_theta(config, model) / at_once
    seconds = config.data.shards * (size / HASH_BYTES_PER_SECOND + again)
    piece = PIECE_COPIES * size * min(1.0, CHECKED_ROWS / config.data.rows_per_shard)
    return _effort(seconds, BASE_MB, threads * (piece + _block_bytes(config, model)))


def train(config: Config, wildcards: Mapping[str, str], threads: int) -> Effort:
    """All epochs of one network, or of one for each seed."""
    training, network = config.training_of(wildcards["network"]), config.network(wildcards["network"])
    of_lan = network.network_type == "lan"  # the others have a row for each theta
    rows_per_shard = config.data.rows_per_shard if of_lan else config.data.thetas_per_shard
    rows = config.data.shards * rows_per_shard
    layers = [len(config.model(wildcards["model"]).params) + 2, *network.hidden_layers]
    weights = sum((inputs + 1) * outputs for inputs, outputs in zip(layers, [*layers[1:], 1], strict=True))
    speed = ROWS_PER_SECOND * min(1.0, USUAL_WEIGHTS / weights) * math.sqrt(threads)
    in_memory = min(training.buffer_gb * 1e9, rows * _row_bytes(config, wildcards["model"]))
    passes = UNIT_BYTES * sum(network.hidden_layers) * min(training.batch_size, rows)
    seeds = len(training.seeds) if training.seeds_per_job == "all" else 1
    seconds = seeds * training.epochs * rows / speed + (seeds - 1) * FURTHER_SECONDS
    return _effort(seconds, BASE_MB + FRAMEWORK_MB, 2 * in_memory + passes)


def gpu(config: Config, wildcards: Mapping[str, str]) -> int | None:
    """One for a training on a GPU; others do not mention it, since some clusters refuse ``gpu=0``."""
    return 1 if config.training_of(wildcards["network"]).device == "gpu" else None


def evaluate_network(config: Config, wildcards: Mapping[str, str], threads: int) -> Effort:
    """The reference at the evaluation's trials, from the best engine of the model: data.engine does not count."""
    model, trials = wildcards["model"], config.evaluation.trials
    if has_exact(model):
        seconds, simulated = EVALUATED_THETAS * trials / 100_000 * EXACT_SECONDS, 0
    else:
        thetas = 2 * config.evaluation.mass_thetas  # all of them are in memory together
        seconds, simulated = thetas * _seconds_per_theta(config, model), thetas * config.data.n_trajectories
    return _effort(seconds, 2 * BASE_MB, 2_000 * trials + TRIAL_BYTES * simulated)


def _effort(seconds: float, base_mb: float, data_bytes: float) -> Effort:
    return Effort(mem_mb=math.ceil(base_mb + data_bytes / 1e6), runtime=math.ceil(BASE_MINUTES + SAFETY * seconds / 60))


def _row_bytes(config: Config, model: str) -> int:
    return 4 * (len(config.model(model).params) + 3)  # theta, rt, choice, label


def _block_bytes(config: Config, model: str) -> float:
    rows = BLOCK_COPIES * _row_bytes(config, model) * config.data.rows_per_theta
    trials = TRIAL_BYTES * config.data.n_trajectories if _simulates(config, model) else 0
    return BLOCK_THETAS * (rows + trials)


def _seconds_per_theta(config: Config, model: str) -> float:
    data = config.data
    if not _simulates(config, model):
        return EXACT_SECONDS * max(1.0, data.rows_per_theta / 1000)
    if data.target == "euler":
        stepping = EULER_LCA_SECONDS if config.model(model).simulator == "lca" else EULER_SECONDS
        seconds = max(CONTINUOUS_SECONDS, stepping * USUAL_STEP / data.delta_t)
    else:
        seconds = OWN_WALK_SECONDS if has_own_simulator(model) else CONTINUOUS_SECONDS
    return seconds * data.n_trajectories / USUAL_TRAJECTORIES


def _simulates(config: Config, model: str) -> bool:
    return config.data.engine == "simulation" or not has_exact(model)
