"""Cost and error of training labels: ssm-simulators' own generator and lanline, side by side in one process.

    python benchmarks/labels.py [--models ddm angle weibull ornstein] [--thetas 500] [--peer-thetas 6]

For each model: CPU milliseconds per theta, rows per second, the mean absolute error of the labels where
log f > -10, and the ratio of the costs. Errors are against the references of benchmarks/accuracy.py. Both make 1000
rows for each theta.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from accuracy import reference_of

from lanline.config import Data
from lanline.dataset.rows import sample_theta
from lanline.engines import densities, engines_of
from lanline.models import Model, get_model

ROWS = 1000
TRAJECTORIES = 20_000
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
    density = densities(model, theta, data, rng)
    rt, choice = density.sample(ROWS, rng)
    labels = density.log_density(rt, choice)
    seconds = time.process_time() - start
    few = slice(30)
    expected = reference_of(model, engine)(model, theta[few], rt[few], choice[few])
    return seconds / n_theta, mean_error(labels[few], expected)


def run_peer(model: Model, n_theta: int) -> tuple[float, float]:
    """The same for ssm-simulators' generator: LogKDE of 20,000 trajectories, as published networks were made from."""
    from ssms.config import ModelConfigBuilder
    from ssms.config.generator_config.data_generator_config import get_lan_kde_config
    from ssms.dataset_generators.lan_mlp import TrainingDataGenerator

    config = get_lan_kde_config(model.name)
    config["pipeline"] |= {"n_parameter_sets": n_theta, "n_subruns": 1, "n_cpus": 1}
    config["simulator"]["n_samples"] = TRAJECTORIES
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
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'model':12s} {'engine':14s} {'CPU ms/theta':>12s} {'rows/s':>12s} {'mean error':>10s} {'ratio':>8s}")
    for name in arguments.models:
        model = get_model(name)
        peer_seconds, peer_error = run_peer(model, arguments.peer_thetas)
        show(name, "ssm-simulators", peer_seconds, peer_error, 1.0)
        for engine in engines_of(model)[:-1]:
            seconds, error = run_lanline(model, engine, arguments.thetas)
            show(name, engine, seconds, error, peer_seconds / seconds)


def show(name: str, engine: str, seconds: float, error: float, ratio: float) -> None:
    print(f"{name:12s} {engine:14s} {seconds * 1e3:12.3f} {ROWS / seconds:12,.0f} {error:10.1e} {ratio:8,.0f}")


if __name__ == "__main__":
    main()
