"""Races above a floor against eigenfunctions, finite volumes, and simulated trials."""

import numpy as np
import pytest
from scipy import linalg, optimize, stats

from agreement import chi_squared_per_bin
from lanline.config import Data
from lanline.engines import densities, has_exact, resolve_engine
from lanline.models import get_model, model_names
from lanline.theta import sample_theta

NAMES = [name for name in model_names() if name.startswith("race_")]


def by_eigenfunctions(v: float, a: float, x0: float, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Density and survival function of one accumulator with a constant bound.

    Without drift (as a factor exp(v (x - x0) - v^2 t / 2)) its modes are sin(k (a - x)) with k cot(k a) = -v.
    """
    f, s = np.zeros_like(t), np.zeros_like(t)
    for n in range(200):
        k = optimize.brentq(
            lambda k: k * np.cos(k * a) + v * np.sin(k * a), (n + 0.5) * np.pi / a, (n + 1) * np.pi / a, xtol=1e-15
        )
        norm = 0.5 * a - np.sin(2 * k * a) / (4 * k)
        rate = 0.5 * (k * k + v * v)
        weight = np.sin(k * (a - x0)) / norm * np.exp(v * (a - x0) - rate * t)
        f += 0.5 * k * weight
        s += 0.5 * k * weight / rate
    return f, s


def by_finite_volumes(v: float, a: float, fall: float, x0: float, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same for a bound a - fall t, at equidistant times: two grids, extrapolated."""
    coarse, fine = (finite_volumes(v, a, fall, x0, t, cells) for cells in (400, 800))
    return tuple(f + (f - c) / 3 for c, f in zip(coarse, fine, strict=True))


def finite_volumes(v, a, fall, x0, t, n):
    """Cells of y = x / bound, trapezoid rule in time."""
    first = 2e-3
    edges = np.linspace(0, 1, n + 1)
    h = 1 / n
    bound = a - fall * first
    p = np.diff(stats.norm.cdf(edges * bound, x0 + v * first, np.sqrt(first)))
    time = np.concatenate(
        [np.geomspace(first, t[0], n // 2 + 1), np.linspace(t[0], t[-1], n // 200 * (len(t) - 1) + 1)[1:]]
    )

    def rates(now: float) -> np.ndarray:
        """Banded matrix of the flow between cells; nothing flows at 0, and p is 0 at 1."""
        b = a - fall * now
        speed, spread = (v + fall * edges) / b, 0.5 / b**2 / h**2
        up = 0.5 * speed / h
        out = np.zeros((3, n))
        out[1, :-1] -= spread + up[1:-1]
        out[2, :-1] += spread + up[1:-1]
        out[1, 1:] -= spread - up[1:-1]
        out[0, 1:] += spread - up[1:-1]
        out[1, -1] -= 2 * spread
        return out

    f, s, before = np.empty(len(time)), np.empty(len(time)), rates(first)
    for i, now in enumerate(time):
        after = rates(now)
        if i:
            step = now - time[i - 1]
            right = p + 0.5 * step * (
                before[1] * p + np.append(before[0, 1:] * p[1:], 0) + np.append([0], before[2, :-1] * p[:-1])
            )
            matrix = -0.5 * step * after
            matrix[1] += 1
            p = linalg.solve_banded((1, 1), matrix, right)
        before = after
        f[i] = p[-1] / (h * (a - fall * now)) ** 2
        s[i] = p.sum()
    return np.interp(t, time, f), np.interp(t, time, s)


def joint(finishing: list[tuple[np.ndarray, np.ndarray]], c: int) -> np.ndarray:
    return finishing[c][0] * np.prod([s for j, (_, s) in enumerate(finishing) if j != c], axis=0)


def at(name: str, theta: np.ndarray, data: Data = Data()):  # noqa: B008
    return densities(get_model(name), theta, data, np.random.default_rng(0))


def test_all_of_them_have_exact_densities():
    assert len(NAMES) == 15
    assert {resolve_engine(get_model(name), Data()) for name in NAMES} == {"first_passage"}
    assert all(has_exact(get_model(f"{name}_deadline")) for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if "angle" not in name])
def test_equals_the_eigenfunctions_of_a_constant_bound(name):
    model = get_model(name)
    theta = sample_theta(model, 6, np.random.default_rng(1))
    density = at(name, theta)
    for row, rt, choice in zip(theta, *density.sample(40, np.random.default_rng(2)), strict=True):
        value = dict(zip(model.params, row, strict=True))
        # Later ones are in the tails, down to exp(-16) and below.
        t = np.concatenate([rt - value["t"], np.geomspace(0.05, 12.0, 40)])
        choice = np.concatenate([choice, np.resize(model.choices, 40)])
        starts = [value["a"] * value.get(f"z{j}", value.get("z", 0.0)) for j in range(len(model.choices))]
        alone = [by_eigenfunctions(value[f"v{j}"], value["a"], x0, t) for j, x0 in enumerate(starts)]
        expected = np.choose(choice.astype(int), [joint(alone, c) for c in range(len(starts))])
        counted = (expected > np.exp(-16)) & (t > 0.05)
        actual = at(name, row[None]).log_density(value["t"] + t[None], choice[None])[0]
        error = np.abs(actual[counted] - np.log(expected[counted]))
        assert counted.sum() > 5
        assert error.mean() < 5e-4
        assert error.max() < 1e-2


@pytest.mark.parametrize(
    ("v", "a", "z", "theta"),
    [
        ([1.0, 0.3], 1.6, 0.4, 0.4),
        ([2.4, 2.0], 2.8, 0.2, 1.1),
        ([0.0, 1.5], 1.2, 0.6, 1.4),
        ([0.2, 0.0], 1.3, 0.5, -0.1),
    ],
)
def test_solves_the_fokker_planck_equation_of_a_moving_bound(v, a, z, theta):
    fall = np.tan(theta)
    end = 0.9 * a / fall if fall > 0 else 12.0
    t = np.linspace(0.05 * end, end, 300)
    alone = [by_finite_volumes(each, a, fall, z * a, t) for each in v]
    density = at("race_no_bias_angle_2", np.array([[*v, a, z, 0.1, theta]]))
    for c in range(2):
        expected = joint(alone, c)
        actual = density.log_density(0.1 + t[None], np.full((1, len(t)), float(c)))[0]
        counted = expected > np.exp(-9)
        error = np.abs(actual - np.log(expected))[counted]
        assert counted.sum() > 100
        assert error.mean() < 5e-4
        assert error.max() < 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_a_walk_and_a_floor_that_they_are_cut_off_at(name):
    """The process that the simulator runs; at other places than the middle, and with the bound falling."""
    model = get_model(name)
    share = {"v": [0.7, 0.4, 0.1, 0.3], "z": [0.2, 0.5, 0.05, 0.35]}
    theta = []
    for param, (low, high) in model.bounds.items():
        among = share.get(param[0], [0.3])
        theta.append(low + (high - low) * among[int(param[1:])] if param[1:].isdigit() else low + 0.3 * (high - low))
    assert chi_squared_per_bin(model, theta, "euler", 1e-3, 20_000) < 1.6


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("race_3", [2.0, 1.0, 0.2, 1.0, 0.1, 0.4, 0.05, 0.2]),
        ("race_no_z_4", [2.0, 1.5, 0.3, 0.0, 1.7, 0.1]),
        ("race_no_z_angle_3", [0.5, 0.1, 0.2, 2.5, 0.3, -0.09]),
        ("race_no_bias_angle_4", [1.0, 0.5, 1.5, 0.0, 1.4, 0.1, 0.2, 1.0]),
    ],
)
def test_agrees_with_walks_in_continuous_time(name, theta):
    assert chi_squared_per_bin(get_model(name), theta, "continuous", 1e-3, 50_000) < 1.6


@pytest.mark.parametrize("name", NAMES)
def test_mass(name):
    """Over so long a time that next to nobody is left, but for a bound that may run away."""
    model = get_model(name)
    theta = sample_theta(model, 200, np.random.default_rng(3))
    total = at(name, theta, Data(max_t=1e4)).choice_probability().sum(axis=1)
    stays = theta[:, -1] >= 0 if model.params[-1] == "theta" else np.ones(len(theta), bool)
    assert total[stays] == pytest.approx(1.0, abs=2e-4)
    assert total.max() < 1 + 1e-4


def test_the_survival_of_a_slow_accumulator_outlasts_its_rivals():
    """It decides nothing once they have finished, and everything before."""
    v, a, x0 = [2.4, 2.3, 0.06], 2.6, 2.1
    t = np.geomspace(0.02, 6.0, 60)
    alone = [by_eigenfunctions(each, a, x0, t) for each in v]
    density = at("race_no_bias_3", np.array([[*v, a, x0 / a, 0.0]]))
    expected = joint(alone, 0)
    counted = expected > np.exp(-16)
    actual = density.log_density(t[None], np.zeros((1, len(t))))[0]
    assert actual[counted] == pytest.approx(np.log(expected[counted]), abs=5e-3)


def test_deadlines_and_limits():
    theta = np.array([[1.0, 1.0, 1.5, 0.2, 0.3, 0.3, 1.1], [1.0, 1.0, 1.5, 0.2, 0.3, 0.3, 0.2]])
    density = at("race_2_deadline", theta)
    whole = at("race_2", theta[:, :-1])
    t = np.linspace(0.31, 1.09, 50)
    rt, choice = np.tile(t, (2, 1)), np.zeros((2, 50))
    assert density.log_density(rt, choice)[0] == pytest.approx(whole.log_density(rt, choice)[0], abs=2e-3)
    assert np.isneginf(density.log_density(rt, choice)[1]).all()
    assert density.omission_probability()[1] == pytest.approx(1.0)
    survival = np.prod([by_eigenfunctions(1.0, 1.5, 1.5 * z, np.array([0.8]))[1] for z in (0.2, 0.3)], axis=0)
    assert density.omission_probability()[0] == pytest.approx(survival[0], abs=1e-4)
    drawn, _ = density.sample(500, np.random.default_rng(0))
    assert drawn[0].max() < 1.1
    assert np.isnan(drawn[1]).all()
