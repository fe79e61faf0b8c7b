"""Many trajectories at few thetas, or few at many: networks from simulated labels of the same CPU cost.

    python benchmarks/trajectories.py [--cpu-seconds 60] [--trajectories 20000 5000 1250 300] [--rows-millions 2]

For ddm, whose exact density judges the networks: each number of trajectories makes as many thetas as it can in the
CPU seconds, with the same number of rows in all; a network of the default size is trained on each (JAX, 4 epochs).
Prints the mean absolute error of the labels and of the network where log f > -10, at thetas and rows of their own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from held_out import HeldOut

from lanline.config import Config, Network, Training, parse_config
from lanline.dataset.generate import generate_shard
from lanline.dataset.rows import BLOCK_THETAS, block_rows
from lanline.engines import densities
from lanline.models import get_model
from lanline.networks.specification import make_spec
from lanline.training.job import Job
from lanline.training.loop import train

MODEL = get_model("ddm")
LOWEST = -10.0


def configure(trajectories: int, thetas: int, rows: int) -> Config:
    data = {"engine": "simulation", "n_trajectories": trajectories, "thetas_per_shard": thetas, "rows_per_theta": rows}
    values = {"name": "benchmark", "models": [MODEL.name], "networks": [{"name": "lan"}], "data": data}
    return parse_config(values)


def mean_error(values: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(values - expected)[expected > LOWEST].mean())


def compare(trajectories: int, cpu_seconds: float, n_rows: float) -> None:
    held_out = HeldOut.of(MODEL, 2000, 10)
    block_rows(MODEL, configure(trajectories, BLOCK_THETAS, 1000).data, 1, 0, 0)  # compiles
    start = time.process_time()
    block_rows(MODEL, configure(trajectories, 4 * BLOCK_THETAS, 1000).data, 1, 0, 1)
    per_theta = (time.process_time() - start) / BLOCK_THETAS
    thetas = round(cpu_seconds / per_theta)
    config = configure(trajectories, thetas, max(1, round(n_rows / thetas)))
    few = slice(50)
    simulated = densities(MODEL, held_out.theta[few], config.data, np.random.default_rng(1))
    labels = simulated.log_density(held_out.rt[few], held_out.choice[few])
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.safetensors" for i in range(2)]
        generate_shard(configure(trajectories, 100, 100), MODEL.name, 0, files[0])
        generate_shard(config, MODEL.name, 1, files[1])
        settings = Training(epochs=4, huber_delta=0.1)
        job = Job(make_spec(Network(name="lan"), MODEL), settings, "jax", 1, files[1:], files[:1], "x", 1)
        trained = train(job, None, lambda metrics, step: None, lambda line: None)
    expected = held_out.expected
    network = trained.forward(held_out.inputs()).reshape(expected.shape)
    print(
        f"{trajectories:6d} trajectories  {per_theta * 1e3:7.2f} ms/theta  {thetas:6d} thetas  "
        f"label error {mean_error(labels, expected[few]):.4f}  network error {mean_error(network, expected):.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, default=60.0)
    parser.add_argument("--trajectories", type=int, nargs="+", default=[20_000, 5_000, 1_250, 300])
    parser.add_argument("--rows-millions", type=float, default=2.0)
    arguments = parser.parse_args()
    for trajectories in arguments.trajectories:
        compare(trajectories, arguments.cpu_seconds, arguments.rows_millions * 1e6)


if __name__ == "__main__":
    main()
