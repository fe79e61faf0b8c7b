"""The first-passage engine against closed forms, an integral equation, finer steps, and simulated trials."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from lanline.config import Data
from lanline.dataset.rows import BLOCK_THETAS, block_rows, sample_theta
from lanline.engines import closed_form, densities, first_passage, resolve_engine, simulation
from lanline.errors import UserError
from lanline.models import get_model, model_names

COVERED = [name for name in model_names() if first_passage.covers(get_model(name))]
ENGINE = Data(engine="first_passage")


def volterra(process: first_passage.Process, time: np.ndarray) -> np.ndarray:
    """Densities at the lower and the upper bound (2, N) by the integral equation of Buonocore et al. (1990).

    Trapezoid rule on a uniform grid, plain and slow: nothing in common with the engine but the process.
    """
    step, g = time[1] - time[0], process.leak
    bound = process.bound(time)
    slope = np.gradient(bound, time, edge_order=2)
    drift = process.drift(time).astype(float)
    pushed = integrate.cumulative_simpson(np.exp(g * time) * drift, x=time, initial=0)
    f = np.zeros((2, len(time)))

    def kernel(side, i, mean, variance):
        at = side * bound[i]
        density = np.exp(-0.5 * (at - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        return density * (side * slope[i] - drift[i] + g * at - (at - mean) / variance)

    def spread(elapsed):
        return -np.expm1(-2 * g * elapsed) / (2 * g) if g else elapsed

    for i in range(1, len(time)):
        past = slice(1, i)
        elapsed = time[i] - time[past]
        moved = np.exp(-g * time[i]) * (pushed[i] - pushed[past])
        kept = np.exp(-g * elapsed) * bound[past]
        start = np.exp(-g * time[i]) * (process.start + pushed[i])
        for c, side in enumerate((-1, 1)):
            flow = kernel(side, i, start, spread(time[i]))
            variance = spread(elapsed)
            flow -= step * np.sum(
                f[1, past] * kernel(side, i, kept + moved, variance)
                + f[0, past] * kernel(side, i, -kept + moved, variance)
            )
            f[c, i] = -side * flow
    return f


@pytest.mark.parametrize("name", ["ddm", "angle"])
def test_equals_the_closed_form(name):
    model = get_model(name)
    rng = np.random.default_rng(1)
    theta = sample_theta(model, 64, rng)
    limit = np.full(64, 20.0)
    exact = closed_form.densities(model, theta, limit, 0.0)
    solved = first_passage.densities(model, theta, limit, 0.0)
    elapsed = np.exp(rng.uniform(np.log(3e-3), np.log(20), (64, 200)))
    rt, choice = theta[:, 3:4] + elapsed, rng.choice([-1.0, 1.0], elapsed.shape)
    expected, actual = exact.log_density(rt, choice), solved.log_density(rt, choice)
    counted = expected > -16
    error = np.abs(actual[counted] - expected[counted])
    assert error.mean() < 1e-4
    assert error.max() < 5e-3
    assert solved.choice_probability() == pytest.approx(exact.choice_probability(), abs=2e-4)


@pytest.mark.parametrize(
    ("name", "theta", "end"),
    [
        ("weibull", [1.0, 1.5, 0.4, 0.2, 2.5, 1.5], 1.2),
        ("weibull", [-1.5, 1.2, 0.6, 0.2, 0.9, 2.0], 1.2),
        ("ornstein", [1.0, 1.2, 0.4, 0.8, 0.2], 1.2),
        ("ornstein", [-1.0, 1.2, 0.7, -0.9, 0.2], 1.2),
        ("ornstein_angle", [0.5, 1.5, 0.4, 0.7, 0.2, 0.5], 1.2),
        ("gamma_drift", [0.5, 1.3, 0.5, 0.2, 3.0, 0.1, 2.5], 1.2),
        ("gamma_drift_angle", [-0.5, 1.3, 0.5, 0.2, 0.4, 4.0, 0.1, -2.5], 1.2),
        ("conflict_ds", [0.0, 1.3, 0.5, 0.2, 0.5, 2.0, 2.0, 3.0, 2.0, 0.8, 0.9], 1.2),
        ("shrink_spot", [0.2, 1.3, 0.4, 0.2, 3.0, -3.0, 1.0, 0.05, 1.5], 1.2),
    ],
)
def test_solves_the_integral_equation(name, theta, end):
    model = get_model(name)
    theta = np.array([theta])
    time = np.linspace(0, end, 601)
    expected = volterra(first_passage.processes(model, theta, 0.0)[0], time)
    density = densities(model, theta, ENGINE, np.random.default_rng(0))
    onset = theta[0, model.params.index("t")]
    for c, choice in enumerate(model.choices):
        actual = np.exp(density.log_density(onset + time[None], np.full((1, len(time)), float(choice))))[0]
        assert np.abs(actual - expected[c]).max() < 5e-3 * expected.max()


@pytest.mark.parametrize("name", COVERED)
def test_steps_are_fine_enough(name, monkeypatch):
    """A third of the step changes labels by less than the accuracy that the engine promises."""
    model = get_model(name)
    rng = np.random.default_rng(2)
    theta = sample_theta(model, 12, rng)
    limit = np.full(12, 20.0)
    onset = theta[:, [model.params.index("t")]]
    usual = first_passage.densities(model, theta, limit, 0.0)
    for nodes in ("N_NODES", "N_NODES_DRIFT"):
        monkeypatch.setattr(first_passage, nodes, 3 * (getattr(first_passage, nodes) - 1) + 1)
    fine = first_passage.densities(model, theta, limit, 0.0)
    rt = onset + np.exp(rng.uniform(np.log(3e-3), np.log(20), (12, 300)))
    choice = rng.choice([-1.0, 1.0], rt.shape)
    expected, actual = fine.log_density(rt, choice), usual.log_density(rt, choice)
    counted = expected > -16
    error = np.abs(actual[counted] - expected[counted])
    assert error.mean() < 1e-3
    assert np.quantile(error, 0.99) < 3e-2
    assert usual.choice_probability() == pytest.approx(fine.choice_probability(), abs=2e-3)


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("weibull", [1.0, 1.2, 0.4, 0.2, 2.5, 1.0]),
        ("ornstein_angle", [0.5, 1.2, 0.4, 0.7, 0.2, 0.5]),
        ("gamma_drift", [0.2, 1.2, 0.5, 0.2, 3.0, 0.1, 2.5]),
        ("shrink_spot", [0.2, 1.2, 0.4, 0.2, 3.0, -3.0, 1.0, 0.04, 1.5]),
    ],
)
def test_euler_target_agrees_with_simulated_trials(name, theta):
    """The process that the simulator runs with its plain steps: chi-squared per bin about 1."""
    model, theta, n = get_model(name), np.array([theta]), 40_000
    data = Data(engine="first_passage", target="euler")
    density = densities(model, theta, data, np.random.default_rng(0))
    rt, choice = simulation.simulate(model, theta, np.array([20.0]), "euler", data.delta_t, n, seed=4)
    edges = np.quantile(rt, np.linspace(0, 1, 21))
    edges[0], edges[-1] = 0.2, 8.0
    fine = np.concatenate([np.linspace(low, high, 101)[:-1] for low, high in pairwise(edges)])
    chi_squared, bins = 0.0, 0
    for value in model.choices:
        f = np.exp(density.log_density(fine[None], np.full((1, len(fine)), float(value))))[0]
        mass = integrate.cumulative_simpson(np.append(f, 0.0), x=np.append(fine, 8.0), initial=0)
        expected = n * np.diff(np.append(mass[:-1:100], mass[-1]))
        observed = np.histogram(rt[choice == value], edges)[0]
        used = expected > 20
        chi_squared += np.sum((observed - expected)[used] ** 2 / expected[used])
        bins += used.sum()
    assert stats.chi2.sf(chi_squared, bins) > 1e-3


def test_a_limit_before_anything_can_happen():
    model = get_model("weibull_deadline")
    theta = np.array([[1.0, 1.5, 0.5, 1.0, 2.0, 2.0, 0.5], [1.0, 1.5, 0.5, 1.0, 2.0, 2.0, 1.005]])
    density = densities(model, theta, ENGINE, np.random.default_rng(0))
    assert density.omission_probability() == pytest.approx([1.0, 1.0])
    assert np.isnan(density.sample(5, np.random.default_rng(0))[0]).all()


def test_a_short_limit_leaves_the_far_bound_its_onset():
    """The far bound's density is below what the series resolves until the limit; it is still there."""
    process = ["ornstein", [1.0, 2.0, 0.8, 0.3, 0.2]]
    model, theta = get_model(process[0]), np.array([process[1]])
    rt, choice = np.array([[0.5, 0.55, 0.59]]), -np.ones((1, 3))
    short = densities(model, theta, Data(max_t=0.6), np.random.default_rng(0)).log_density(rt, choice)
    long = densities(model, theta, Data(), np.random.default_rng(0)).log_density(rt, choice)
    assert short == pytest.approx(long, abs=0.05)


def test_omissions_are_what_is_left_at_the_limit():
    model = get_model("ornstein")
    theta = np.array([[0.1, 2.0, 0.5, 0.5, 0.2]])
    density = densities(model, theta, Data(max_t=4.0), np.random.default_rng(0))
    rt, _ = simulation.simulate(model, theta, np.array([4.0]), "continuous", 1e-3, 20_000, seed=8)
    assert density.omission_probability()[0] == pytest.approx(np.isnan(rt).mean(), abs=0.015)
    assert 0.2 < density.omission_probability()[0] < 0.8


def test_rows_are_finite_and_chosen_by_auto():
    model, data = get_model("weibull"), Data(thetas_per_shard=BLOCK_THETAS)
    assert resolve_engine(model, data) == "first_passage"
    rows = block_rows(model, data, 1, 0, 0)
    assert np.isfinite(rows["lan_data"]).all()
    assert np.isfinite(rows["lan_labels"]).all()


def test_drifts_that_jump_are_left_to_simulation():
    assert not first_passage.covers(get_model("conflict_stimflex"))
    assert not first_passage.covers(get_model("shrink_spot_extended_deadline"))
    assert resolve_engine(get_model("conflict_stimflex"), Data()) == "simulation"
    with pytest.raises(UserError, match="conflict_stimflex has no first_passage; it has auto, simulation"):
        resolve_engine(get_model("conflict_stimflex"), ENGINE)
