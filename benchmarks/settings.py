"""What the settings of a training are worth: networks of one model, each with a few settings of its own.

    python benchmarks/settings.py "huber_delta=0.1" "huber_delta=0.03" "huber_delta=0.03 rows_per_theta=50"
        [--model angle] [--rows-millions 15] [--base "epochs=6 learning_rate=0.0025"] [--framework jax] [--data FOLDER]

The settings are keys of `training`, and rows_per_theta of `data`. Prints for each network the mean and the 99th
percentile of its absolute error in log-likelihood over 100,000 trials of thetas that no training set holds, and the
error beside that of the first one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from held_out import HeldOut
from training import ROWS_PER_SHARD, make_data

from lanline.config import Network, Training
from lanline.models import Model, get_model
from lanline.networks.specification import make_spec
from lanline.training.job import Job, Trained
from lanline.training.loop import train


def train_with(settings: dict[str, Any], model: Model, framework: str, folder: Path, shards: int) -> Trained:
    rows_per_theta = settings.pop("rows_per_theta", 100)
    files = make_data(folder / f"{model.name}-{rows_per_theta}", shards, model.name, rows_per_theta)
    job = Job(
        make_spec(Network(name="lan"), model),
        Training(**settings),
        framework,
        1,
        files[1:],
        files[:1],
        "benchmark",
        os.cpu_count() or 1,
    )
    return train(job, None, lambda metrics, step: None, lambda line: print(f"  {line}", flush=True))


def parse_settings(text: str) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, value in (part.split("=", 1) for part in text.split())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--model", default="angle")
    parser.add_argument("--rows-millions", type=float, default=15.0)
    parser.add_argument("--base", default="epochs=6 learning_rate=0.0025")
    parser.add_argument("--framework", default="jax", choices=["torch", "jax"])
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lanline-benchmark")
    arguments = parser.parse_args()
    model = get_model(arguments.model)
    held_out = HeldOut.of(model, 2000, 50)
    expected = held_out.expected.ravel()
    first: float | None = None
    for text in arguments.settings:
        settings = parse_settings(arguments.base) | parse_settings(text)
        shards = 1 + round(arguments.rows_millions * 1e6 / ROWS_PER_SHARD)
        trained = train_with(settings, model, arguments.framework, arguments.data, shards)
        error = np.abs(trained.forward(held_out.inputs()) - expected)[np.isfinite(expected)]
        first = first or error.mean()
        print(
            f"{text}: error {error.mean():.4f}  99th percentile {np.quantile(error, 0.99):.3f}  "
            f"ratio {error.mean() / first:.2f}  {trained.timings['total']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
