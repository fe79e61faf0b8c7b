"""Closed forms against independent numerics: an integral equation, known formulas, simulated trials."""

import numpy as np
import pytest
from scipy import integrate, stats

from agreement import chi_squared_per_bin, registered
from lanline.config import Data
from lanline.engines import closed_form, densities, first_passage, has_exact, resolve_engine, simulation
from lanline.engines.overshoot import OVERSHOOT
from lanline.errors import UserError
from lanline.models import get_model, model_names
from lanline.theta import sample_theta

THETA = {
    "ddm": np.array([[1.0, 1.2, 0.4, 0.3], [-2.5, 0.5, 0.7, 0.0], [0.0, 2.0, 0.5, 1.0]]),
    "ddm_sdv": np.array([[1.0, 1.2, 0.4, 0.3, 1.0], [-2.0, 0.8, 0.7, 0.001, 2.5], [0.5, 2.0, 0.3, 0.1, 0.5]]),
    "angle": np.array([[1.0, 1.2, 0.4, 0.3, 0.4], [-2.5, 0.5, 0.7, 0.001, 1.2], [0.5, 2.0, 0.2, 1.0, -0.1]]),
}


def volterra(v: float, a: float, k: float, start: float, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities at the upper and lower bound +-(a - k t) by the integral equation of Buonocore et al. (1990).

    Trapezoid rule on a uniform grid: slow and plain, and independent of any series.
    """
    bound = a - k * time
    step = time[1] - time[0]

    def kernel(side, at, mean, variance):
        slope, gap = -side * k - v, side * bound[at] - mean
        density = np.exp(-0.5 * gap**2 / variance) / np.sqrt(2 * np.pi * variance)
        return density * (slope - gap / variance)

    upper, lower = np.zeros(len(time)), np.zeros(len(time))
    for i in range(1, len(time)):
        past = slice(1, i)
        elapsed = time[i] - time[past]
        from_upper, from_lower = bound[past] + v * elapsed, -bound[past] + v * elapsed
        for side, out in ((1, upper), (-1, lower)):
            flow = kernel(side, i, start + v * time[i], time[i])
            flow -= step * np.sum(
                upper[past] * kernel(side, i, from_upper, elapsed) + lower[past] * kernel(side, i, from_lower, elapsed)
            )
            out[i] = -side * flow
    return upper, lower


@pytest.mark.parametrize("name", ["ddm", "angle"])
def test_density_solves_the_integral_equation(name):
    model = get_model(name)
    for theta in THETA[name]:
        v, a, z, onset = theta[:4]
        k = np.tan(theta[4]) if name == "angle" else 0.0
        time = np.linspace(0, min(1.0, 0.9 * a / max(k, 1e-9)), 501)
        expected = volterra(v, a, k, (2 * z - 1) * a, time)
        density = densities(model, theta[None], Data(), np.random.default_rng(0))
        for choice, reference in zip((1.0, -1.0), expected, strict=True):
            actual = np.exp(density.log_density(onset + time[None], np.full((1, len(time)), choice)))[0]
            assert np.abs(actual - reference).max() < 2e-3 * reference.max()


@pytest.mark.parametrize("name", ["ddm", "angle", "angle_extended", "ddm_sdv"])
def test_mass_is_one_and_choice_probabilities_are_integrals(name):
    model = registered(name)
    theta = sample_theta(model, 200, np.random.default_rng(1))
    onset = theta[:, 3]
    density = densities(model, theta, Data(), np.random.default_rng(0))
    grid = np.linspace(np.log(1e-5), np.log(20.0), 5001)
    time = np.minimum(onset[:, None] + np.exp(grid), np.nextafter(20.0, 0))
    inside = onset[:, None] + np.exp(grid) < 20.0
    for c, choice in enumerate(model.choices):
        f = np.exp(density.log_density(time, np.full(time.shape, float(choice)))) * np.exp(grid) * inside
        assert np.abs(integrate.trapezoid(f, grid, axis=1) - density.choice_probability()[:, c]).max() < 1e-3
    total = density.choice_probability().sum(axis=1) + density.omission_probability()
    assert np.allclose(total, 1.0, atol=1e-4)


def test_ddm_choice_probability_is_the_known_formula():
    model = get_model("ddm")
    theta = sample_theta(model, 500, np.random.default_rng(2))
    v, a, z, _ = theta.T
    expected = np.expm1(-4 * v * a * z) / np.expm1(-4 * v * a)
    density = densities(model, theta, Data(max_t=1000.0), np.random.default_rng(0))
    assert np.abs(density.choice_probability()[:, 1] - expected).max() < 1e-4


def test_angle_without_collapse_is_the_ddm():
    ddm, angle = get_model("ddm"), get_model("angle")
    theta = sample_theta(ddm, 50, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    rt, choice = rng.uniform(0, 10, (50, 40)), rng.choice([-1.0, 1.0], (50, 40))
    plain = densities(ddm, theta, Data(), rng).log_density(rt, choice)
    flat = densities(angle, np.column_stack([theta, np.zeros(50)]), Data(), rng).log_density(rt, choice)
    assert np.array_equal(np.isfinite(plain), np.isfinite(flat))
    assert np.allclose(plain[np.isfinite(plain)], flat[np.isfinite(plain)], rtol=1e-10, atol=1e-9)


def test_drift_variability_is_the_mean_over_drifts():
    ddm, model = get_model("ddm"), get_model("ddm_sdv")
    theta = sample_theta(model, 100, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    density = densities(model, theta, Data(), rng)
    rt, choice = density.sample(20, rng)
    mean, deviates = 0.0, np.linspace(-10, 10, 801)
    for deviate in deviates:
        at_drift = theta[:, :4].copy()
        at_drift[:, 0] += deviate * theta[:, 4]
        f = np.exp(densities(ddm, at_drift, Data(), rng).log_density(rt, choice))
        mean = mean + stats.norm.pdf(deviate) * (deviates[1] - deviates[0]) * f
    assert np.abs(np.log(mean) - density.log_density(rt, choice)).max() < 1e-8


@pytest.mark.parametrize("target", ["continuous", "euler"])
def test_drift_variability_agrees_with_simulated_trials(target):
    model = get_model("ddm_sdv")
    for theta in THETA["ddm_sdv"][:2]:
        assert chi_squared_per_bin(model, list(theta), target, 1e-3, 40_000) < 1.6


def test_both_series_agree_where_they_meet():
    from lanline.engines.closed_form import series

    below, above = np.nextafter(series.SWITCH, 0), series.SWITCH
    for distance in np.linspace(0.05, 1.95, 39):
        assert series.log_density(below, distance) == pytest.approx(series.log_density(above, distance), abs=1e-10)


@pytest.mark.parametrize("name", ["ddm", "angle", "ddm_sdv"])
def test_samples_follow_the_density(name):
    model = get_model(name)
    theta = THETA[name]
    density = densities(model, theta, Data(), np.random.default_rng(0))
    n = 50_000
    rt, choice = density.sample(n, np.random.default_rng(5))
    share = density.choice_probability() / density.choice_probability().sum(axis=1, keepdims=True)
    for b, c in np.ndindex(share.shape):
        drawn = np.sort(rt[b, choice[b] == model.choices[c]])
        assert len(drawn) / n == pytest.approx(share[b, c], abs=4 * np.sqrt(0.25 / n))
        if len(drawn) > 1000:
            grid = np.linspace(theta[b, 3], 20.0, 40_001)[1:-1]
            f = np.exp(
                density.log_density(
                    np.tile(grid, (len(theta), 1)), np.full((len(theta), len(grid)), float(model.choices[c]))
                )
            )[b]
            cdf = integrate.cumulative_trapezoid(f, grid, initial=0)
            distance = stats.kstest(drawn, lambda t, g=grid, p=cdf: np.interp(t, g, p / p[-1])).statistic
            assert distance < 1.95 / np.sqrt(len(drawn)) + 2e-3


@pytest.mark.parametrize("target", ["continuous", "euler"])
def test_density_agrees_with_simulated_trials(target):
    """Both targets against the simulator: its plain steps, and its steps with the continuity correction."""
    model = get_model("angle")
    theta = THETA["angle"][:1]
    data = Data(target=target)
    rt, choice = simulation.simulate(model, theta, np.array([20.0]), target, 1e-3, 40_000, seed=6)
    density = densities(model, theta, data, np.random.default_rng(0))
    drawn_rt, drawn_choice = density.sample(40_000, np.random.default_rng(7))
    for value in model.choices:
        same = stats.ks_2samp(rt[choice == value], drawn_rt[drawn_choice == value])
        assert same.pvalue > 1e-3
    assert (choice == 1).mean() == pytest.approx(density.choice_probability()[0, 1], abs=0.012)


@pytest.mark.parametrize("target", ["continuous", "euler"])
def test_the_legacy_ddm_has_half_the_width(target):
    assert chi_squared_per_bin(get_model("ddm_legacy"), [1.0, 2.0, 0.4, 0.3], target, 1e-3, 40_000) < 1.6


def test_the_first_passage_engine_leaves_the_legacy_ddm_alone():
    assert not first_passage.covers(get_model("ddm_legacy"))


def test_targets_differ_as_the_shift_of_the_bounds_says():
    model, theta = get_model("ddm"), THETA["ddm"][:1]
    euler = densities(model, theta, Data(target="euler", delta_t=1e-2), np.random.default_rng(0))
    wide = theta.copy()
    wide[0, 1] += OVERSHOOT * 0.1
    wide[0, 2] = 0.5 + (theta[0, 2] - 0.5) * theta[0, 1] / wide[0, 1]
    expected = densities(model, wide, Data(), np.random.default_rng(0))
    rt, choice = np.linspace(0.35, 3, 50)[None], np.ones((1, 50))
    assert np.allclose(euler.log_density(rt, choice), expected.log_density(rt, choice))


def test_responses_after_the_limit_are_omissions():
    model, theta = get_model("ddm"), np.array([[0.0, 2.5, 0.5, 0.5]])
    short = densities(model, theta, Data(max_t=2.0), np.random.default_rng(0))
    rt, _ = simulation.simulate(model, theta, np.array([2.0]), "continuous", 1e-3, 20_000, seed=8)
    assert short.omission_probability()[0] == pytest.approx(np.isnan(rt).mean(), abs=0.01)
    assert short.omission_probability()[0] > 0.9
    drawn, _ = short.sample(1000, np.random.default_rng(9))
    assert drawn.max() < 2.0
    assert np.isneginf(short.log_density(np.array([[2.0, 3.0, 0.5, -0.5]]), np.ones((1, 4)))).all()


def test_deadline_is_the_limit_of_the_deadline_variant():
    model = get_model("ddm_deadline")
    theta = np.array([[0.5, 1.5, 0.5, 0.3, 1.0]])
    density = densities(model, theta, Data(), np.random.default_rng(0))
    same = densities(get_model("ddm"), theta[:, :4], Data(max_t=1.0), np.random.default_rng(0))
    assert np.allclose(density.choice_probability(), same.choice_probability())
    assert np.isneginf(density.log_density(np.array([[1.01]]), np.ones((1, 1))))[0, 0]


def test_a_deadline_before_the_onset_leaves_only_omissions():
    model = get_model("ddm_deadline")
    density = densities(model, np.array([[0.5, 1.5, 0.5, 1.0, 0.2]]), Data(), np.random.default_rng(0))
    assert density.omission_probability()[0] == 1.0
    rt, choice = density.sample(10, np.random.default_rng(0))
    assert np.isnan(rt).all()
    assert np.isnan(choice).all()


def test_the_engine_of_a_model():
    covered = {name for name in model_names() if closed_form.covers(get_model(name))}
    assert {"angle", "ddm", "ddm_legacy", "ddm_sdv"} <= covered
    assert not covered & {"weibull", "ornstein", "race_3", "lca_3", "levy"}
    assert has_exact(get_model("ddm_deadline"))
    assert resolve_engine(get_model("ddm"), Data()) == "closed_form"
    assert resolve_engine(get_model("ddm"), Data(engine="simulation")) == "simulation"
    assert resolve_engine(get_model("lca_3"), Data()) == "simulation"
    with pytest.raises(UserError, match="lca_3 has no closed_form"):
        resolve_engine(get_model("lca_3"), Data(engine="closed_form"))
    assert resolve_engine(get_model("levy"), Data()) == "simulation"
