"""The simulators in continuous time against exact distributions, and against ssm-simulators' with small steps."""

import numpy as np
import pytest
from scipy import stats

from lanline.config import Data
from lanline.engines import densities, simulation
from lanline.engines.overshoot import OVERSHOOT
from lanline.engines.simulation import walks
from lanline.models import Model, get_model

N = 40_000
SMALL = 5e-4
LIMIT = np.array([20.0])


def walk(name: str, theta: list[float], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Response times and choices at the steps that labels are made with."""
    model = get_model(name)
    step = simulation.step(model, "continuous", 1e-3)
    rt, choice = simulation.simulate(model, np.array([theta]), LIMIT, "continuous", step, N, seed)
    return rt[0], choice[0]


def exact_ddm(v: float, a: float, z: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    theta = np.array([[v, a, z, 0.0]])
    rt, choice = densities(get_model("ddm"), theta, Data(), np.random.default_rng(0)).sample(
        N, np.random.default_rng(seed)
    )
    return rt[0], choice[0]


def assert_same_distribution(first, second):
    """Two-sample tests of the choices and of the response times of each."""
    (rt, choice), (rt_2, choice_2) = first, second
    values = np.unique(choice[~np.isnan(choice)])
    counts = [[*(np.sum(c == value) for value in values), np.isnan(c).sum()] for c in (choice, choice_2)]
    counts = np.array(counts)[:, np.sum(counts, axis=0) > 10]
    assert stats.chi2_contingency(counts).pvalue > 1e-3
    for value in values:
        if (choice == value).sum() > 50:
            assert stats.ks_2samp(rt[choice == value], rt_2[choice_2 == value]).pvalue > 1e-3


def test_the_first_of_two_accumulators_far_from_the_floor():
    # Steps are as large as the way to the bound, so nearly every crossing is one that a bridge gives.
    drift, way = np.array([2.5, 1.0]), 0.3
    rt, choice = walk("race_no_bias_2", [*drift, 3.0, 0.9, 0.1])
    later = lambda t: np.prod([1 - stats.invgauss.cdf(t, 1 / (way * v), scale=way**2) for v in drift], axis=0)  # noqa: E731
    assert stats.kstest(rt, lambda t: 1 - later(t - 0.1)).pvalue > 1e-3
    first = stats.invgauss.rvs(1 / (way * drift), scale=way**2, size=(N, 2), random_state=1).argmin(axis=1)
    assert np.mean(choice == 0) == pytest.approx(np.mean(first == 0), abs=0.012)


def test_the_floor_reflects():
    # Without drift a particle above a floor is the distance from 0 of one between two bounds.
    rt, _ = walk("race_no_bias_2", [0.0, 0.0, 1.2, 0.2, 0.0])
    way, _ = exact_ddm(0.0, 1.2, 0.6, seed=2)
    other, _ = exact_ddm(0.0, 1.2, 0.6, seed=3)
    assert stats.ks_2samp(rt, np.minimum(way, other)).pvalue > 1e-3


def two_levels(join, vh: float, vl1: float, vl2: float, a: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact draws of independent levels, whose times are joined by ``join``."""
    high, upper = exact_ddm(vh, a, 0.5, seed=4)
    after_lower, after_upper = exact_ddm(vl1, a, 0.5, seed=5), exact_ddm(vl2, a, 0.5, seed=6)
    low, low_upper = (np.where(upper > 0, *pair) for pair in zip(after_upper, after_lower, strict=True))
    return join(high, low) + t, 2 * (upper > 0) + (low_upper > 0)


@pytest.mark.parametrize("a", [0.5, 1.3])
@pytest.mark.parametrize(
    ("name", "join", "low", "damping"),
    [
        ("ddm_seq2_no_bias", np.add, [1.0, -0.4], []),
        ("ddm_par2_no_bias", np.maximum, [1.0, -0.4], []),
        ("ddm_mic2_adj_no_bias", np.maximum, [0.0, 0.0], [0.7]),  # no drift to be damped
    ],
)
def test_two_independent_levels(name, join, low, damping, a):
    expected = two_levels(join, 0.6, *low, a, 0.2)
    assert_same_distribution(walk(name, [0.6, *low, a, *damping, 0.2]), expected)


def test_steps_follow_a_bound_that_bends():
    boundary = lambda t, a: a * np.exp(-((t / 0.8) ** 3))  # noqa: E731
    times, bounds = walks.time_grid(boundary, {"a": 1.5}, 20.0, 0.05)
    steps = np.diff(times)
    assert steps.max() < 0.051
    assert (np.sqrt(steps) < 0.21 * bounds[:-1])[bounds[:-1] > 0.2].all()
    halfway = 0.5 * (times[1:] + times[:-1])
    assert np.abs(boundary(halfway, 1.5) - 0.5 * (bounds[1:] + bounds[:-1])).max() < 5e-3


def test_steps_end_where_the_bound_is_down():
    times, bounds = walks.time_grid(lambda t, a: a - 2 * t, {"a": 1.0}, 20.0, 0.05)
    assert times[-1] == pytest.approx(0.5, abs=2e-3)
    assert bounds[-1] <= 0
    rt, _ = walk("lca_no_bias_angle_3", [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.1, np.arctan(2.0)])
    assert not np.isnan(rt).any()
    assert rt.max() < 0.61


def test_responses_stop_at_the_deadline():
    model = get_model("race_3_deadline")
    theta = np.array([[0.5, 0.5, 0.5, 1.0, 0.1, 0.2, 0.3, 0.2, 0.7], [0.5, 0.5, 0.5, 1.0, 0.1, 0.2, 0.3, 0.5, 0.4]])
    limit = theta[:, -1]
    late, _ = walk("race_3", theta[0, :-1].tolist())
    rt, _ = simulation.simulate(model, theta, limit, "continuous", 0.05, N, seed=2)
    assert np.isnan(rt[1]).all()
    assert np.nanmax(rt[0]) < 0.7
    assert np.isnan(rt[0]).mean() == pytest.approx((late >= 0.7).mean(), abs=0.012)


def small_steps(model: Model, theta: list[float], limit: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """ssm-simulators' Euler walk with bound and floor moved inwards by its mean overshoot."""
    from ssms.basic_simulators.simulator_class import Simulator
    from ssms.config import get_boundary_registry

    overshoot = OVERSHOOT * np.sqrt(SMALL)
    inwards, values = overshoot, dict(zip(model.params, theta, strict=True))
    if model.simulator in ("race_model", "lca"):
        # The floor stays at 0, so everything else moves: bound, start points, and what lca's drift takes from them.
        inwards = 2 * overshoot
        pull = values.get("g", 0.0) + (model.n_particles - 1) * values.get("b", 0.0)
        for key in values:
            values[key] -= {"z": overshoot / values["a"], "v": overshoot * pull}.get(key[0], 0.0)
    registered = get_boundary_registry().get(model.boundary)

    def boundary(t, **params):
        bound = registered["fun"](t=t, **params)
        bound[1:] -= inwards  # the first value places the start point
        return bound

    simulator = Simulator(f"{model.name}_deadline", boundary=boundary, boundary_params=registered["params"])
    done = simulator.simulate(
        values | {"deadline": limit}, n, SMALL, limit + 0.1, random_state=7, return_option="minimal"
    )
    rt, choice = done["rts"].ravel().astype(float), done["choices"].ravel().astype(float)
    return np.where(rt > 0, rt, np.nan), np.where(rt > 0, choice, np.nan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("race_3", [2.0, 1.0, 0.2, 1.0, 0.1, 0.4, 0.05, 0.2]),
        ("race_no_bias_angle_4", [1.0, 0.5, 1.5, 0.0, 1.4, 0.1, 0.2, 1.0]),
        ("lca_3", [2.0, 1.5, 1.0, 1.0, 0.1, 0.05, 0.3, 0.9, 0.8, 0.2]),
        ("lca_no_bias_angle_4", [0.5, 1.5, 1.0, 0.0, 1.2, 0.1, -0.9, -0.5, 0.2, 0.3]),
        ("ddm_seq2_angle_no_bias", [1.0, 1.5, -1.0, 0.9, 0.2, 0.4]),
        ("ddm_par2_weibull_no_bias", [1.0, 1.5, -1.0, 1.0, 0.2, 2.5, 0.8]),
        ("ddm_mic2_ornstein", [1.0, 2.0, -1.5, 0.8, 0.45, 0.5, 0.6, 0.2, 1.0, 0.2]),
        ("ddm_mic2_leak_no_bias_no_lowdim_noise", [1.0, 2.0, -1.5, 0.8, 0.3, 0.2]),
        ("ddm_mic2_multinoise_no_bias", [1.0, 2.0, -1.5, 0.8, 0.3, 0.2]),
        ("tradeoff_no_bias", [1.0, 2.0, -1.5, 0.8, 0.3, 0.2]),
    ],
)
def test_the_distribution_is_that_of_ssm_simulators_with_small_steps(name, theta):
    model, limit, n = get_model(name), 4.0, N // 2
    step = simulation.step(model, "continuous", SMALL)
    assert step >= 40 * SMALL
    ours = simulation.simulate(model, np.array([theta]), np.array([limit]), "continuous", step, n, seed=8)
    assert_same_distribution((ours[0][0], ours[1][0]), small_steps(model, theta, limit, n))
