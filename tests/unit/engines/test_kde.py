"""The fast kernel density estimate against ssm-simulators' own, and against the definition."""

import numpy as np
import pytest
from scipy import integrate, stats

from lanline.engines.simulation import kde


@pytest.fixture(scope="module")
def simulated():
    from ssms.basic_simulators.simulator import simulator

    return simulator(np.array([[-1.5, 1.5, 0.6, 0.5, 0.4]]), "angle", n_samples=10_000, random_state=3)


@pytest.mark.parametrize("choice", [-1, 1])
def test_equals_logkde_of_ssm_simulators(simulated, choice):
    from ssms.support_utils.kde_class import LogKDE

    points = np.random.default_rng(0).uniform(0.3, 6, 1000)
    expected = LogKDE(simulated).kde_eval({"rts": points, "choices": np.full(1000, choice)}, lb=-1e9)
    rt = simulated["rts"][simulated["choices"] == choice]
    actual = kde.fit(rt).log_density(points) + np.log(len(rt) / 10_000)
    near = expected > -10
    assert near.sum() > 300
    assert np.abs(actual - expected)[near].max() < 1e-3
    far = expected > -60
    assert np.abs(actual - expected)[far].max() < 0.05


@pytest.mark.parametrize("rt", [[0.7], [0.7, 0.7, 0.7], [0.2, 19.0], [0.5, 0.5001, 3.0]])
def test_few_trials_give_the_sum_of_their_kernels(rt):
    rt = np.array(rt)
    estimate = kde.fit(rt)
    points = np.exp(np.linspace(np.log(rt.min()), np.log(rt.max()), 7)) * np.exp(0.3 * estimate.bandwidth)
    expected = stats.norm.pdf(np.log(points)[:, None], np.log(rt), estimate.bandwidth).mean(axis=1) / points
    assert np.allclose(np.exp(estimate.log_density(points)), expected, rtol=2e-3)


def test_mass_is_one():
    estimate = kde.fit(np.random.default_rng(1).gamma(2.0, 0.5, 5000))
    log_rt = np.linspace(-12, 8, 20_001)
    density = np.exp(estimate.log_density(np.exp(log_rt)) + log_rt)
    assert integrate.trapezoid(density, log_rt) == pytest.approx(1.0, abs=1e-6)


def test_no_density_where_no_kernel_reaches():
    estimate = kde.fit(np.full(100, 1.0))
    assert np.isneginf(estimate.log_density(np.array([1e-4, 50.0]))).all()
