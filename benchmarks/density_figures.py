"""Exact densities over histograms of simulated trials, one panel per model: docs/figures/labels/*.png.

    python benchmarks/density_figures.py [--trials 20000]

Simulated by ssm-simulators in steps of 0.001 s; densities are those of the target ``euler``. Parameters are the first
draw within the registry's bounds at which every choice is made in at least a sixth of the trials, and no more than 5 %
are omissions.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lanline.config import Data
from lanline.engines import densities, engines_of, simulation
from lanline.evaluation.style import CHOICE_COLOURS, STYLE
from lanline.files import atomic_path
from lanline.models import Model, get_model, model_names
from lanline.theta import sample_theta

FOLDER = Path(__file__).parent.parent / "docs" / "figures" / "labels"
DATA = Data(target="euler", delta_t=1e-3)
COLUMNS, ROWS = 3, 4
CANDIDATES = 400


def typical_theta(model: Model) -> np.ndarray:
    """(1, P) parameters with which every choice can be seen."""
    rng = np.random.default_rng(8)
    theta = sample_theta(model, CANDIDATES, rng)
    density = densities(model, theta, DATA, rng)
    probability = density.choice_probability()
    fair = (probability.min(axis=1) > 1 / 6) & (density.omission_probability() < 0.05)
    return theta[[np.argmax(fair) if fair.any() else np.argmax(probability.min(axis=1))]]


def draw(axes: Axes, model: Model, trials: int) -> None:
    theta, rng = typical_theta(model), np.random.default_rng(0)
    density = densities(model, theta, DATA, rng)
    rt, choice = simulation.simulate(model, theta, np.array([DATA.max_t]), DATA.target, DATA.delta_t, trials, seed=3)
    first, last = np.nanquantile(rt, [0.0, 0.99])
    first = max(first - 0.05 * (last - first), 0.0)
    edges, grid = np.linspace(first, last, 61), np.linspace(first, last, 1201)
    for value, colour in zip(model.choices, CHOICE_COLOURS, strict=False):
        counts, _ = np.histogram(rt[choice == value], edges)
        axes.stairs(counts / (trials * np.diff(edges)), edges, fill=True, color=colour, alpha=0.3)
        f = np.exp(density.log_density(grid[None], np.full((1, len(grid)), float(value))))[0]
        axes.plot(grid, f, color=colour, lw=1.2, label=f"{value:+d}" if min(model.choices) < 0 else f"{value}")
    axes.set_title(model.name)
    axes.set_ylim(0)
    axes.legend(handlelength=1.0, fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    models = [get_model(name) for name in model_names()]
    by_engine = {
        engine: [model for model in models if engines_of(model)[0] == engine and model.simulator != "inv_temp_softmax"]
        for engine in ("closed_form", "first_passage")
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for engine, group in by_engine.items():
        for page, begin in enumerate(range(0, len(group), COLUMNS * ROWS), start=1):
            shown = group[begin : begin + COLUMNS * ROWS]
            rows = -(-len(shown) // COLUMNS)
            with rc_context(STYLE):
                figure = Figure(figsize=(9.0, 2.1 * rows), layout="constrained")
                panels = figure.subplots(rows, COLUMNS, squeeze=False)
                for model, axes in zip(shown, panels.ravel(), strict=False):
                    draw(axes, model, arguments.trials)
                for axes in panels.ravel()[len(shown) :]:
                    axes.set_axis_off()
                figure.supxlabel("response time (s)", fontsize=9)
                figure.supylabel("density (1/s)", fontsize=9)
                with atomic_path(FOLDER / f"{engine}_{page}.png") as path:
                    figure.savefig(path, dpi=110, format="png")
            print(FOLDER / f"{engine}_{page}.png", flush=True)


if __name__ == "__main__":
    main()
