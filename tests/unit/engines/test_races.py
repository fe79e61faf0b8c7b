"""Races in closed form against quadrature of their definitions and simulated trials."""

import numpy as np
import pytest
from scipy import integrate, stats

from agreement import chi_squared_per_bin, registered
from lanline.config import Data
from lanline.engines import densities, has_exact, resolve_engine, simulation
from lanline.models import get_model
from lanline.theta import sample_theta

NAMES = [
    "lba2",
    "lba3",
    "lba4",
    "lba_3_vs_constraint",
    "lba_angle_3",
    "lba_angle_3_vs_constraint",
    "racing_diffusion_3",
    "poisson_race",
]


NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
PANELS = 100


def folded_normal_cdf(x, v):
    return np.where(x > 0, stats.norm.cdf(x, v, 0.1) - stats.norm.cdf(-x, v, 0.1), 0.0)


def folded_normal_pdf(x, v):
    return np.where(x > 0, stats.norm.pdf(x, v, 0.1) + stats.norm.pdf(-x, v, 0.1), 0.0)


def at_distance(model, values, j):
    """Density and survival function of accumulator j that starts at the distance d from its bound."""
    v = values[f"v{j}"]
    if model.simulator == "racing_diffusion_model":
        return (
            lambda t, d: stats.invgauss.pdf(t, 1 / (v * d), scale=d * d),
            lambda t, d: stats.invgauss.sf(t, 1 / (v * d), scale=d * d),
        )
    collapse = np.tan(values.get("theta", 0.0))
    return (
        lambda t, d: d / t**2 * folded_normal_pdf(d / t - collapse, v),
        lambda t, d: folded_normal_cdf(d / t - collapse, v),
    )


def reference(model, theta, rt, choice):
    """Log-density by plain quadrature over the start points."""
    values = dict(zip(model.params, theta, strict=True))
    t = rt - values.get("t", 0.0)
    if model.simulator == "poisson_race":
        finishing = [stats.gamma(values["k" + j], scale=1 / values["r" + j]) for j in "12"]
        parts = [(law.logpdf(t), law.logsf(t)) for law in finishing]
    else:
        bound, start = (values["b"], values["A"]) if "b" in values else (values["a"], values["z"])
        # No accumulator is slower than the bound that falls towards it.
        slowest = np.tan(values.get("theta", 0.0)) * t
        edges = np.linspace(max(bound - start, slowest, 0.0), bound, PANELS + 1)
        half = 0.5 * (edges[1] - edges[0])
        d = (edges[:-1, None] + half * (NODES + 1)).ravel()
        weight = np.tile(half * WEIGHTS, PANELS) / start
        laws = [at_distance(model, values, j) for j in range(len(model.choices))]
        parts = [[np.log(np.sum(weight * part(t, d))) for part in law] for law in laws]
    c = model.choices.index(choice)
    return parts[c][0] + sum(part[1] for j, part in enumerate(parts) if j != c)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_density_is_the_integral_over_start_points(name):
    model = registered(name)
    theta = sample_theta(model, 12, np.random.default_rng(1))
    density = densities(model, theta, Data(), np.random.default_rng(0))
    rt, choice = density.sample(4, np.random.default_rng(2))
    log_f = density.log_density(rt, choice)
    expected = [[reference(model, theta[i], rt[i, k], choice[i, k]) for k in range(4)] for i in range(12)]
    assert np.abs(log_f - expected).max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_mass_and_choice_probabilities(name):
    model = registered(name)
    theta = sample_theta(model, 10, np.random.default_rng(3))
    density = densities(model, theta, Data(), np.random.default_rng(0))
    total = density.choice_probability().sum(axis=1) + density.omission_probability()
    assert np.allclose(total, 1.0, atol=1e-4)
    # Log-spaced around the responses of each theta, which may be as short as milliseconds.
    rt, _ = density.sample(2000, np.random.default_rng(4))
    onset = theta[:, model.params.index("t")] if "t" in model.params else np.zeros(10)
    lowest = np.log((rt.min(axis=1) - onset).clip(1e-9)) - 3
    u = lowest[:, None] + (np.log(20.0) - lowest)[:, None] * np.linspace(0, 1, 4001)
    for c, value in enumerate(model.choices):
        f = np.exp(density.log_density(onset[:, None] + np.exp(u), np.full(u.shape, float(value))) + u)
        assert np.abs(integrate.trapezoid(f, u, axis=1) - density.choice_probability()[:, c]).max() < 2e-3


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("lba2", [0.3, 0.5, 0.5, 0.6]),
        ("lba2", [0.8, 0.6, 0.1, 0.3]),
        ("lba3", [0.3, 0.5, 0.25, 0.5, 0.25]),
        ("lba4", [0.3, 0.5, 0.25, 0.4, 0.5, 0.25]),
        ("lba_3_vs_constraint", [0.5, 0.3, 0.2, 0.5, 0.2]),
        ("lba_angle_3", [0.5, 3.0, 0.2, 0.8, 0.4, 0.5]),
        ("poisson_race", [3.0, 5.0, 2.5, 6.0, 0.3]),
        ("poisson_race", [15.0, 12.0, 1.2, 1.0, 0.0]),
    ],
)
def test_density_agrees_with_simulated_trials(name, theta):
    assert chi_squared_per_bin(registered(name), theta, "continuous", 1e-3, 20_000) < 1.6


@pytest.mark.parametrize("target", ["continuous", "euler"])
@pytest.mark.parametrize("theta", [[1.5, 1.0, 0.5, 0.5, 1.2, 0.2], [0.0, 2.0, 0.3, 0.9, 1.0, 0.5]])
def test_racing_diffusion_agrees_with_simulated_walks(target, theta):
    assert chi_squared_per_bin(get_model("racing_diffusion_3"), theta, target, 1e-3, 20_000) < 1.6


@pytest.mark.parametrize("name", ["lba3", "racing_diffusion_3"])
def test_start_points_above_the_bound_are_omissions(name):
    model = get_model(name)
    theta = {"lba3": [0.8, 0.6, 0.5, 0.6, 0.4], "racing_diffusion_3": [1.5, 1.0, 0.5, 0.8, 0.6, 0.1]}[name]
    density = densities(model, np.array([theta]), Data(max_t=1000.0), np.random.default_rng(0))
    # All three start below the bound with the probability (b / A)^3; then somebody finishes.
    assert density.omission_probability()[0] == pytest.approx(1 - 0.75**3, abs=1e-4)


@pytest.mark.parametrize("target", ["continuous", "euler"])
def test_simulated_start_points_above_the_bound_are_omissions_too(target):
    model, theta = get_model("racing_diffusion_3"), np.array([[1.5, 1.0, 0.5, 0.8, 0.6, 0.1]])
    rt, _ = simulation.simulate(model, theta, np.array([20.0]), target, 1e-3, 10_000, seed=3)
    exact = densities(model, theta, Data(target=target), np.random.default_rng(0)).omission_probability()[0]
    # The simulator cannot tell them from those that arrive in the first step.
    assert exact - 0.02 < np.isnan(rt).mean() < exact + 0.08


def test_races_without_steps_have_the_same_density_for_both_targets():
    for name in ("lba2", "poisson_race"):
        model = get_model(name)
        theta = sample_theta(model, 5, np.random.default_rng(5))
        rt = np.tile(np.linspace(0.1, 5, 50), (5, 1))
        choice = np.full(rt.shape, float(model.choices[0]))
        both = [
            densities(model, theta, Data(target=target), np.random.default_rng(0)).log_density(rt, choice)
            for target in ("continuous", "euler")
        ]
        assert np.array_equal(*both)


def test_the_engine_and_deadlines():
    model = get_model("racing_diffusion_3_deadline")
    assert has_exact(model)
    assert resolve_engine(model, Data()) == "closed_form"
    density = densities(
        model, np.array([[1.0, 1.0, 1.0, 0.5, 1.5, 0.3, 0.8], [1.0, 1.0, 1.0, 0.5, 1.5, 0.3, 0.2]]), Data(), None
    )
    assert density.omission_probability()[1] == 1.0
    rt, _ = density.sample(500, np.random.default_rng(0))
    assert rt[0].max() < 0.8
    assert np.isnan(rt[1]).all()
    assert np.isneginf(density.log_density(np.array([[0.8], [0.1]]), np.zeros((2, 1)))).all()
