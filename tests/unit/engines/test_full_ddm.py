"""Drift diffusion with variable start point and non-decision time, against plain quadrature and simulated trials."""

import numpy as np
import pytest
from scipy import stats

from agreement import chi_squared_per_bin, registered
from lanline.config import Data
from lanline.engines import densities, resolve_engine
from lanline.engines.closed_form import ddm
from lanline.models import get_model
from lanline.theta import sample_theta

NAMES = ["ddm_st", "full_ddm", "full_ddm2", "full_ddm_rv"]
ONSETS = 2000
SMOOTH = ["ddm_normal_st", "ddm_rayleight", "ddm_truncnormt"]


def reference(model, theta, rt, choice):
    """Mean density of ddm_sdv over a grid of start points and onsets."""
    values = dict(zip(model.params, theta, strict=True))
    radius = values.get("sz", 0.0)
    if model.simulator == "full_ddm":
        radius = radius / (2 * values["a"])
    nodes, weights = np.polynomial.legendre.leggauss(40)
    low, high = max(values["z"] - radius, 0.0), min(values["z"] + radius, 1.0)
    share = (high - low) / (2 * radius) if radius else 1.0
    start = low + 0.5 * (high - low) * (nodes + 1)
    onset = values["t"] + values["st"] * ((2 * np.arange(ONSETS) + 1) / ONSETS - 1)
    plain = np.array([[values["v"], values["a"], z, 0.0, values.get("sv", 0.0)] for z in start])
    density = ddm.densities(get_model("ddm_sdv"), plain, np.full(len(plain), 100.0), 0.0)
    time = np.tile((rt[:, None] - onset).ravel(), (len(plain), 1))
    side = np.tile(np.repeat(choice, ONSETS), (len(plain), 1))
    f = (0.5 * weights) @ np.exp(density.log_density(time, side))
    at_once = max(radius - values["z"], 0.0) if choice[0] < 0 else max(values["z"] + radius - 1.0, 0.0)
    jump = (at_once / (2 * radius) if radius else 0.0) * (np.abs(rt - values["t"]) < values["st"]) / (2 * values["st"])
    return np.log(share * f.reshape(len(rt), ONSETS).mean(axis=1) + jump)


@pytest.mark.parametrize("name", NAMES)
def test_density_is_the_mean_over_start_points_and_onsets(name):
    model = get_model(name)
    assert resolve_engine(model, Data()) == "closed_form"
    theta = sample_theta(model, 10, np.random.default_rng(1))
    if name == "full_ddm":
        theta[0, [1, 2, 4]] = 0.3, 0.35, 0.2  # starts beyond the lower bound
    density = densities(model, theta, Data(), np.random.default_rng(0))
    rt, _ = density.sample(6, np.random.default_rng(2))
    for value in model.choices:
        choice = np.full(rt.shape, float(value))
        expected = [reference(model, *row) for row in zip(theta, rt, choice, strict=True)]
        error = np.abs(density.log_density(rt, choice) - expected)
        # The reference is a midpoint rule, which is coarse where the onset cuts off the density.
        assert error.mean() < 1e-3
        assert error.max() < 2e-2


@pytest.mark.parametrize("name", NAMES)
def test_mass_and_samples(name):
    model = get_model(name)
    theta = sample_theta(model, 10, np.random.default_rng(3))
    density = densities(model, theta, Data(), np.random.default_rng(0))
    t, st = theta[:, 3], theta[:, -1]
    rt, choice = density.sample(10_000, np.random.default_rng(4))
    grid = (t - st)[:, None] + (20 - t + st)[:, None] * np.linspace(0, 1, 40_001) ** 2
    middle = 0.5 * (grid[:, 1:] + grid[:, :-1])
    for c, value in enumerate(model.choices):
        f = np.exp(density.log_density(middle, np.full(middle.shape, float(value))))
        cdf = np.cumsum(f * np.diff(grid), axis=1)
        assert np.abs(cdf[:, -1] - density.choice_probability()[:, c]).max() < 1e-3
        for b in range(10):
            drawn = rt[b, choice[b] == value]
            if len(drawn) > 500:
                at = stats.kstest(drawn, lambda x, b=b, cdf=cdf: np.interp(x, grid[b, 1:], cdf[b] / cdf[b, -1]))
                assert at.pvalue > 1e-4


@pytest.mark.parametrize("target", ["continuous", "euler"])
@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("ddm_st", [1.0, 1.2, 0.4, 0.5, 0.2]),
        ("full_ddm", [1.0, 1.2, 0.4, 0.5, 0.2, 1.0, 0.2]),
        ("full_ddm", [-0.5, 0.3, 0.35, 0.5, 0.2, 1.0, 0.1]),
        ("full_ddm_rv", [-1.0, 0.5, 0.6, 1.0, 0.15, 0.5, 0.9]),
    ],
)
def test_density_agrees_with_simulated_trials(name, theta, target):
    assert chi_squared_per_bin(get_model(name), theta, target, 1e-3, 20_000) < 1.6


def test_a_deadline_among_the_onsets():
    model = get_model("ddm_st_deadline")
    theta = np.array([[1.0, 0.5, 0.5, 0.5, 0.2, 0.45], [1.0, 0.5, 0.5, 0.5, 0.2, 0.3]])
    density = densities(model, theta, Data(), np.random.default_rng(0))
    late = density.omission_probability()
    rt, _ = density.sample(20_000, np.random.default_rng(1))
    assert rt[0].max() < 0.45
    assert np.isnan(rt[1]).all()
    free = densities(get_model("ddm_st"), theta[:, :5], Data(), np.random.default_rng(0))
    assert late[0] == pytest.approx((free.sample(20_000, np.random.default_rng(2))[0][0] > 0.45).mean(), abs=0.02)
    assert late[1] == 1.0


def law_of(model, values):
    """The non-decision time as scipy has it."""
    if "mt" in values:
        return stats.truncnorm(-values["mt"] / values["st"], np.inf, values["mt"], values["st"])
    return stats.norm(values["t"], values["st"]) if "t" in values else stats.rayleigh(0, values["st"])


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_non_decision_times_are_convolved(name):
    model = registered(name)
    theta = sample_theta(model, 10, np.random.default_rng(1))
    density = densities(model, theta, Data(), np.random.default_rng(0))
    rt, choice = density.sample(5, np.random.default_rng(2))
    grid = (np.arange(20_000) + 0.5) / 20_000
    for b, row in enumerate(theta):
        values = dict(zip(model.params, row, strict=True))
        law = law_of(model, values)
        onset = law.ppf(1e-15) + (law.isf(1e-15) - law.ppf(1e-15)) * grid
        plain = np.array([[values["v"], values["a"], values["z"], 0.0]])
        plain_ddm = ddm.densities(get_model("ddm"), plain, np.full(1, 100.0), 0.0)
        for i in range(5):
            f = np.exp(plain_ddm.log_density((rt[b, i] - onset)[None], np.full((1, len(onset)), choice[b, i])))[0]
            expected = np.log(np.sum(f * law.pdf(onset)) * (onset[1] - onset[0]))
            assert density.log_density(rt, choice)[b, i] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("target", ["continuous", "euler"])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_non_decision_times_agree_with_simulated_trials(name, target):
    theta = {"ddm_truncnormt": [1.0, 1.2, 0.4, 0.2, 0.15], "ddm_rayleight": [-1.0, 0.8, 0.6, 0.3]}
    theta["ddm_normal_st"] = [1.0, 0.5, 0.5, 0.25, 0.15]
    assert chi_squared_per_bin(registered(name), theta[name], target, 1e-3, 80_000) < 1.6


@pytest.mark.parametrize("name", SMOOTH)
def test_probabilities_with_smooth_non_decision_times(name):
    model = registered(name + "_deadline")
    theta = sample_theta(get_model(name), 8, np.random.default_rng(3))
    theta = np.column_stack([theta, np.linspace(0.3, 2.0, 8)])
    density = densities(model, theta, Data(), np.random.default_rng(0))
    rt = np.tile(np.linspace(0, 2, 8001)[1:], (8, 1))
    for c, value in enumerate(model.choices):
        f = np.exp(density.log_density(rt, np.full(rt.shape, float(value))))
        expected = (f.sum(axis=1) - 0.5 * f[:, -1]) * rt[0, 0]
        assert expected == pytest.approx(density.choice_probability()[:, c], abs=2e-3)
    drawn, _ = density.sample(1000, np.random.default_rng(4))
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    assert len(drawn) >= 3  # the others' deadlines come before nearly all of their onsets
    assert (drawn > 0).all()
    assert (drawn.max(axis=1) < 2.0).all()
