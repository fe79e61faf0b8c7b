"""How well densities agree with simulated trials, and models that not every ssm-simulators has."""

from importlib import metadata

import numpy as np
import pytest

from lanline.config import Data
from lanline.engines import densities, simulation
from lanline.models import DEADLINE_SUFFIX, Model, get_model, model_names


def registered(name: str) -> Model:
    """The model, where the installed ssm-simulators has it; a few came with 0.13 to 0.15."""
    if name.removesuffix(DEADLINE_SUFFIX) not in model_names():
        pytest.skip(f"ssm-simulators {metadata.version('ssm-simulators')} does not register {name}")
    return get_model(name)


def chi_squared_per_bin(model: Model, theta: list[float], target: str, delta_t: float, n: int) -> float:
    """Pearson's chi-squared over its degrees of freedom, in 20 response-time bins per choice and the omissions."""
    values, limit = np.array([theta]), np.array([20.0])
    rt, choice = simulation.simulate(model, values, limit, target, delta_t, n, seed=1)
    data = Data(target=target, delta_t=delta_t)
    density = densities(model, values, data, np.random.default_rng(0))
    drawn, _ = density.sample(20_000, np.random.default_rng(2))
    first = drawn.min() - 0.02
    onset = theta[model.params.index("t")] if "t" in model.params else 0.0
    grid = first + np.concatenate([[0.0], np.geomspace(1e-4, 20.0 - first, 20_001)])
    middle = 0.5 * (grid[1:] + grid[:-1])
    observed, expected = [], []
    for value in model.choices:
        f = np.exp(density.log_density(middle[None], np.full((1, len(middle)), float(value))))[0]
        cumulative = np.concatenate([[0.0], np.cumsum(f * np.diff(grid))])
        cells = np.linspace(0, cumulative[-1], 21)
        # Simulated walks end at multiples of the step.
        edges = onset + (np.floor((np.interp(cells, cumulative, grid) - onset) / delta_t) + 0.5) * delta_t
        edges[0], edges[-1] = -1.0, 21.0
        expected.append(n * np.diff(np.interp(edges, grid, cumulative)))
        observed.append(np.histogram(rt[choice == value], edges)[0])
    expected.append(n * density.omission_probability())
    observed.append([np.isnan(rt).sum()])
    expected, observed = np.concatenate(expected), np.concatenate(observed)
    used = expected > 5
    return float(np.sum((observed - expected)[used] ** 2 / expected[used]) / (used.sum() - 1))
