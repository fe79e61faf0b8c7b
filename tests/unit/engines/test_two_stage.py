"""Choices on two levels against convolutions, finite volumes, and simulated trials."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import linalg

from agreement import chi_squared_per_bin
from lanline.config import Data
from lanline.engines import densities, has_exact, resolve_engine
from lanline.engines.first_passage import two_stage
from lanline.models import get_model, model_names
from lanline.theta import sample_theta

NAMES = [name for name in model_names() if name.startswith(("ddm_seq2", "ddm_par2"))]
STEP = 1e-3


def at(name: str, theta: np.ndarray, data: Data = Data()):  # noqa: B008
    return densities(get_model(name), theta, data, np.random.default_rng(0))


def of_ddm(v: float, a: float, z: float, t: np.ndarray) -> np.ndarray:
    """(2, T) exact densities at the lower and the upper bound."""
    density = at("ddm", np.array([[v, a, z, 0.0]]))
    return np.exp([density.log_density(t[None], np.full((1, len(t)), c))[0] for c in (-1.0, 1.0)])


def test_all_of_them_have_exact_densities():
    assert len(NAMES) == 10
    assert {resolve_engine(get_model(name), Data()) for name in NAMES} == {"first_passage"}
    assert all(has_exact(get_model(f"{name}_deadline")) for name in NAMES)


@pytest.mark.parametrize(
    ("v", "a", "z"),
    [
        ((1.0, 2.0, -1.5), 0.9, (0.5, 0.3, 0.7)),
        ((-3.0, 0.5, 3.5), 2.0, (0.75, 0.4, 0.25)),
        ((0.0, -2.0, 0.0), 0.5, (0.3, 0.8, 0.5)),
    ],
)
def test_times_of_independent_levels_are_added_or_the_later_one_counts(v, a, z):
    t = STEP * np.arange(1, 4001)
    levels = [of_ddm(each, a, start, t) for each, start in zip(v, z, strict=True)]
    done = [np.cumsum(f, axis=1) * STEP - 0.5 * STEP * f for f in levels]
    theta = np.array([[*v, a, *z, 0.2]])
    for high in (0, 1):
        for low in (0, 1):
            choice = np.full((1, len(t)), 2.0 * high + low)
            f, g = levels[0][high], levels[1 + high][low]
            added = np.append(0.0, np.convolve(f, g)[: len(t) - 1]) * STEP
            later = f * done[1 + high][low] + g * done[0][high]
            for name, expected in (("ddm_seq2", added), ("ddm_par2", later)):
                actual = at(name, theta).log_density(0.2 + t[None], choice)[0]
                counted = expected > np.exp(-16)
                assert np.abs(actual - np.log(expected))[counted].mean() < 1e-3
                assert np.abs(actual - np.log(expected))[counted & (t > 0.05)].max() < 3e-2


def level(v: float, bound: Callable, source: np.ndarray, time: np.ndarray, n: int) -> np.ndarray:
    """(2, T) densities at the lower and the upper bound of a particle that appears in the middle.

    Cells of y = x / bound, implicit Euler steps: nothing in common with the engine.

    Args:
        v: drift.
        bound: b(t).
        source: (T,) probability of appearing in the step up to each time.
        time: (T,) equidistant times, the first is 0.
        n: cells, an even number: half of the particle appears in each of the two in the middle.
    """
    edges, h, step = np.linspace(-1, 1, n + 1), 2 / n, time[1] - time[0]
    p, out = np.zeros(n), np.zeros((2, len(time)))
    height = bound(time)
    slope = np.gradient(height, time)
    p[n // 2 - 1 : n // 2 + 1] = 0.5 * source[0]
    for i in range(1, len(time)):
        b = height[i]
        spread = 0.5 / (b * h) ** 2
        up = 0.5 * (v - slope[i] * edges[1:-1]) / (b * h)
        matrix = np.zeros((3, n))
        matrix[1] = 1.0
        matrix[1, :-1] += step * (spread + up)
        matrix[2, :-1] -= step * (spread + up)
        matrix[1, 1:] += step * (spread - up)
        matrix[0, 1:] -= step * (spread - up)
        matrix[1, [0, -1]] += step * 2 * spread
        p[n // 2 - 1 : n // 2 + 1] += 0.5 * source[i]
        p = linalg.solve_banded((1, 1), matrix, p)
        out[:, i] = 2 * spread * p[[0, -1]]
    return out


def one_after_the_other(v, bound, end: float, steps: int, n: int) -> np.ndarray:
    """(4, 501) densities at equidistant times until ``end``."""
    time = np.linspace(0, end, steps + 1)
    first = np.zeros(steps + 1)
    first[0] = 1.0
    high = level(v[0], bound, first, time, n) * (time[1] - time[0])
    low = [level(v[1 + side], bound, high[side], time, n) for side in (0, 1)]
    return np.concatenate(low)[:, :: steps // 500]


@pytest.mark.parametrize(
    ("name", "v", "rest", "end", "bound"),
    [
        ("angle", (1.0, 1.5, -1.0), {"a": 0.9, "theta": 0.4}, 2.0, lambda t: 0.9 - np.tan(0.4) * t),
        (
            "weibull",
            (1.0, 1.5, -1.0),
            {"a": 1.0, "alpha": 2.5, "beta": 0.8},
            1.1,
            lambda t: np.exp(-((t / 0.8) ** 2.5)),
        ),
        (
            "weibull",
            (-0.5, 2.0, 0.5),
            {"a": 1.5, "alpha": 4.5, "beta": 0.5},
            0.65,
            lambda t: 1.5 * np.exp(-((t / 0.5) ** 4.5)),
        ),
    ],
)
def test_levels_between_moving_bounds(name, v, rest, end, bound):
    rest = dict(zip(("vh", "vl1", "vl2"), v, strict=True)) | rest | {"t": 0.1}
    model = get_model(f"ddm_seq2_{name}_no_bias")
    coarse, fine = (one_after_the_other(v, bound, end, steps, n) for steps, n in ((2000, 200), (4000, 282)))
    expected = 2 * fine - coarse  # errors of both grow like the step in time
    t = np.linspace(0, end, 501)
    density = at(model.name, np.array([[rest[param] for param in model.params]]))
    for c in range(4):
        actual = np.exp(density.log_density(0.1 + t[None], np.full((1, 501), float(c))))[0]
        assert np.abs(actual - expected[c]).max() < 5e-3 * expected.max()


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_simulated_trials(name):
    model = get_model(name)
    share = {"vh": 0.6, "vl1": 0.45, "vl2": 0.65, "zh": 0.4, "zl1": 0.6}
    theta = [low + (high - low) * share.get(param, 0.35) for param, (low, high) in model.bounds.items()]
    assert chi_squared_per_bin(model, theta, "euler", 1e-3, 20_000) < 1.6
    assert chi_squared_per_bin(model, theta, "continuous", 1e-3, 20_000) < 1.6


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_fine_enough_and_nothing_is_lost(name):
    model, rng = get_model(name), np.random.default_rng(2)
    theta = sample_theta(model, 8, rng)
    limit = np.full(8, 20.0)
    usual, fine = (two_stage.densities(model, theta, limit, 0.0, refine) for refine in (1, 2))
    rt, choice = usual.sample(100, rng)
    spread = theta[:, [model.params.index("t")]] + np.exp(rng.uniform(np.log(3e-3), np.log(18), rt.shape))
    rt = np.concatenate([np.nan_to_num(rt, nan=1.0), spread], axis=1)
    choice = np.concatenate([np.nan_to_num(choice), rng.choice(model.choices, spread.shape)], axis=1)
    expected, actual = fine.log_density(rt, choice), usual.log_density(rt, choice)
    counted = expected > -16
    error = np.abs(actual[counted] - expected[counted])
    assert error.mean() < 1e-3
    assert np.quantile(error, 0.99) < 3e-2
    total = two_stage.densities(model, theta, np.full(8, 200.0), 0.0).choice_probability().sum(axis=1)
    assert total == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", ["ddm_seq2_no_bias_deadline", "ddm_par2_weibull_no_bias_deadline"])
def test_deadlines(name):
    """Also one before the onset, and one just after it."""
    model = get_model(name)
    value = {"vh": 0.5, "vl1": 1.0, "vl2": -1.0, "a": 1.0, "t": 0.3, "alpha": 2.0, "beta": 2.0}
    deadlines = (1.0, 0.2, 0.301)
    theta = np.array([[*(value[param] for param in model.params[:-1]), deadline] for deadline in deadlines])
    density, whole = at(name, theta), at(name.removesuffix("_deadline"), theta[:, :-1])
    rt, choice = np.tile(np.linspace(0.35, 0.99, 40), (3, 1)), np.ones((3, 40))
    assert density.log_density(rt, choice)[0] == pytest.approx(whole.log_density(rt, choice)[0], abs=5e-3)
    assert np.isneginf(density.log_density(rt, choice)[1:]).all()
    assert density.omission_probability()[1:] == pytest.approx(1.0)
    before, _ = whole.sample(40_000, np.random.default_rng(1))
    assert density.omission_probability()[0] == pytest.approx((before[0] >= 1.0).mean(), abs=0.012)
    drawn, _ = density.sample(200, np.random.default_rng(2))
    assert drawn[0].max() < 1.0
    assert np.isnan(drawn[1:]).all()
