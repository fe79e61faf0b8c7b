"""Cost and error of training labels: ssm-simulators' own generator and lanline, side by side in one process.

    python benchmarks/labels.py [--models ddm angle weibull ornstein] [--thetas 500] [--peer-thetas 6]

For each model: CPU milliseconds per theta, rows per second, the mean absolute error of the labels where
log f > -10, and the ratio of the costs. Errors are against the closed form where there is one, else against the
first-passage engine with three times as many steps and cells. Both make 1000 rows for each theta.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from lanline.config import Data
from lanline.dataset.rows import sample_theta
from lanline.engines import closed_form, densities, first_passage
from lanline.models import Model, get_model

ROWS = 1000
TRAJECTORIES = 20_000
LOWEST = -10.0


def reference(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Log-densities that the labels are judged by, (B, n)."""
    limit = np.full(len(theta), Data().max_t)
    if closed_form.covers(model):
        return closed_form.densities(model, theta, limit, 0.0).log_density(rt, choice)
    return first_passage.densities(model, theta, limit, 0.0, refine=3).log_density(rt, choice)


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
    few = slice(100)
    return seconds / n_theta, mean_error(labels[few], reference(model, theta[few], rt[few], choice[few]))


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
    expected = reference(model, rows[:, :-2], rows[:, -2:-1], rows[:, -1:])[:, 0]
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
        for engine, covers in (("closed_form", closed_form.covers), ("first_passage", first_passage.covers)):
            if covers(model):
                seconds, error = run_lanline(model, engine, arguments.thetas)
                show(name, engine, seconds, error, peer_seconds / seconds)


def show(name: str, engine: str, seconds: float, error: float, ratio: float) -> None:
    print(f"{name:12s} {engine:14s} {seconds * 1e3:12.3f} {ROWS / seconds:12,.0f} {error:10.1e} {ratio:8,.0f}")


if __name__ == "__main__":
    main()
