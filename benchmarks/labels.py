"""Cost and error of training labels: ssm-simulators' own generator and lanline, side by side in one process.

    python benchmarks/labels.py [--models ddm angle weibull ornstein] [--thetas 500] [--peer-thetas 6] [--cores 2]
                                [--trajectories 20000 200000]

For each model: CPU milliseconds per theta, rows per second, the mean absolute error of the labels where
log f > -10, and the ratio of the costs. Errors are against the references of benchmarks/accuracy.py. Both make 1000
rows for each theta. The last column is the rate of as many processes at once as ``--cores``, over that of one: each
makes shards of its own, as the workflow's jobs do.

ssm-simulators' generator runs with each number of ``--trajectories``: 20,000, and 200,000 as in the field's production
label sets (N_SAMPLES in configs/production_*/data_generation.yaml of github.com/lnccbrown/LAN_pipeline_minimal). Ratios
are to the first of them, then to the second.
"""

from __future__ import annotations

import argparse
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from accuracy import reference_of

from lanline.config import Data
from lanline.engines import densities, engines_of
from lanline.models import Model, get_model
from lanline.theta import sample_theta

ROWS = 1000
LOWEST = -10.0


def mean_error(labels: np.ndarray, expected: np.ndarray) -> float:
    counted = expected > LOWEST
    return float(np.abs(labels[counted] - expected[counted]).mean())


def run_lanline(model: Model, engine: str, n_theta: int) -> tuple[float, float]:
    """CPU seconds per theta, with sampling of the rows, and the labels' mean error."""
    data = Data(engine=engine)
    rng = np.random.default_rng(1)
    theta = sample_theta(model, n_theta, rng)
    densities(model, theta[:2], data, rng).sample(2, rng)  # compiles
    start = time.process_time()
    rt, choice, labels = make_rows(model, theta, data, rng)
    seconds = time.process_time() - start
    few = slice(30)
    expected = reference_of(model, engine)(model, theta[few], rt[few], choice[few])
    return seconds / n_theta, mean_error(labels[few], expected)


def make_rows(model: Model, theta: np.ndarray, data: Data, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    density = densities(model, theta, data, rng)
    rt, choice = density.sample(ROWS, rng)
    return rt, choice, density.log_density(rt, choice)


def rate(name: str, engine: str, n_theta: int, seed: int) -> float:
    """Thetas per second of wall time in this process, when it has warmed up."""
    model, data, rng = get_model(name), Data(engine=engine), np.random.default_rng(seed)
    theta = sample_theta(model, n_theta, rng)
    make_rows(model, theta[:50], data, rng)
    start = time.perf_counter()
    for _ in range(4):
        make_rows(model, theta, data, rng)
    return 4 * n_theta / (time.perf_counter() - start)


def scaling(name: str, engine: str, n_theta: int, cores: int) -> float:
    """Rate of ``cores`` processes at once over that of one."""
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as processes:
        alone = processes.submit(rate, name, engine, n_theta, 0).result()
        together = [processes.submit(rate, name, engine, n_theta, seed) for seed in range(cores)]
        return sum(each.result() for each in together) / alone


def run_peer(model: Model, n_theta: int, trajectories: int) -> tuple[float, float]:
    """The same for ssm-simulators' generator: LogKDE of simulated trajectories."""
    from ssms.config import ModelConfigBuilder
    from ssms.config.generator_config.data_generator_config import get_lan_kde_config
    from ssms.dataset_generators.lan_mlp import TrainingDataGenerator

    config = get_lan_kde_config(model.name)
    config["pipeline"] |= {"n_parameter_sets": n_theta, "n_subruns": 1, "n_cpus": 1}
    config["simulator"]["n_samples"] = trajectories
    generator = TrainingDataGenerator(config, ModelConfigBuilder.from_model(model.name))
    start = time.process_time()
    made = generator.generate_data_training(save=False)
    seconds = time.process_time() - start
    rows, labels = made["lan_data"], made["lan_labels"]
    scored = rows[:, -2] > 0
    rows, labels = rows[scored].astype(float), labels[scored]
    reference, expected = reference_of(model, engines_of(model)[0]), np.empty(len(rows))
    thetas, which = np.unique(rows[:, :-2], axis=0, return_inverse=True)
    for i, theta in enumerate(thetas):
        rt, choice = rows[which == i, -2], rows[which == i, -1]
        expected[which == i] = reference(model, theta[None], rt[None], choice[None])[0]
    return seconds / n_theta, mean_error(labels, expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ddm", "angle", "weibull", "ornstein"])
    parser.add_argument("--thetas", type=int, default=500)
    parser.add_argument("--peer-thetas", type=int, default=6)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--trajectories", type=int, nargs="+", default=[20_000, 200_000])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    head = f"{'model':20s} {'engine':23s} {'CPU ms/theta':>12s} {'rows/s':>12s} {'mean error':>10s} {'ratio':>8s}"
    print(f"{head}  {arguments.cores} cores")
    for name in arguments.models:
        model = get_model(name)
        peers = []
        for trajectories in arguments.trajectories:
            seconds, error = run_peer(model, arguments.peer_thetas, trajectories)
            peers.append(seconds)
            show(name, f"ssm-simulators, {trajectories:,}", seconds, error, peers[0] / seconds)
        for engine in engines_of(model)[:-1]:
            seconds, error = run_lanline(model, engine, arguments.thetas)
            faster = scaling(name, engine, arguments.thetas, arguments.cores)
            others = "".join(f"  {peer / seconds:,.0f}" for peer in peers[1:])
            show(name, engine, seconds, error, peers[0] / seconds, f"{others}  x {faster:.2f}")


def show(name: str, engine: str, seconds: float, error: float, ratio: float, scaled: str = "") -> None:
    print(f"{name:20s} {engine:23s} {seconds * 1e3:12.3f} {ROWS / seconds:12,.0f} {error:10.1e} {ratio:8,.0f}{scaled}")


if __name__ == "__main__":
    main()
