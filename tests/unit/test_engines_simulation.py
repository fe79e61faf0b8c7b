"""The simulation engine: omissions, targets, determinism, and that every registered model works."""

import numpy as np
import pytest
from scipy import stats

from lanline.config import Data
from lanline.dataset.rows import sample_theta
from lanline.engines import densities, simulation
from lanline.errors import UserError
from lanline.models import get_model, model_names


def test_labels_approach_the_closed_form():
    model = get_model("ddm")
    theta = np.array([[0.8, 1.2, 0.45, 0.3]])
    simulated = densities(model, theta, Data(engine="simulation"), np.random.default_rng(1))
    exact = densities(model, theta, Data(), np.random.default_rng(1))
    rt, choice = exact.sample(500, np.random.default_rng(2))
    error = simulated.log_density(rt, choice) - exact.log_density(rt, choice)
    assert np.abs(error).mean() < 0.06
    assert simulated.choice_probability() == pytest.approx(exact.choice_probability(), abs=0.015)


def test_omissions_count_but_are_not_part_of_the_estimate():
    model = get_model("ddm")
    theta = np.array([[0.0, 2.0, 0.5, 0.2]])
    data = Data(engine="simulation", n_trajectories=5000, max_t=2.0)
    density = densities(model, theta, data, np.random.default_rng(1))
    omitted = density.omission_probability()[0]
    assert 0.3 < omitted < 0.9
    rt, _ = density.sample(2000, np.random.default_rng(2))
    assert rt.max() < 2.0
    grid = np.linspace(0.2, 2.0, 4001)[:-1]
    mass = sum(
        np.exp(density.log_density(grid[None], np.full((1, 4000), float(value)))).sum() * (grid[1] - grid[0])
        for value in model.choices
    )
    # The kernels carry a little mass past the limit.
    assert mass == pytest.approx(1 - omitted, abs=0.03)
    assert np.isneginf(density.log_density(np.array([[2.0, 5.0, -1.0, 0.0]]), np.ones((1, 4)))).all()


def test_a_theta_without_responses():
    model = get_model("ddm_deadline")
    theta = np.array([[0.0, 2.0, 0.5, 1.0, 0.1], [1.0, 1.0, 0.5, 0.1, 5.0]])
    data = Data(engine="simulation", n_trajectories=300)
    density = densities(model, theta, data, np.random.default_rng(1))
    assert density.omission_probability() == pytest.approx([1.0, 0.0], abs=0.05)
    rt, _ = density.sample(5, np.random.default_rng(2))
    assert np.isnan(rt[0]).all()
    assert not np.isnan(rt[1]).any()


def test_a_choice_that_no_trial_made_has_the_smallest_density_of_the_field():
    model = get_model("ddm")
    data = Data(engine="simulation", n_trajectories=500)
    density = densities(model, np.array([[3.0, 2.5, 0.9, 0.1]]), data, np.random.default_rng(1))
    assert density.choice_probability()[0, 0] == 0.0
    assert density.log_density(np.array([[1.0]]), np.array([[-1.0]]))[0, 0] == pytest.approx(-np.log(500 * 20.0))


@pytest.mark.parametrize("name", ["race_no_bias_3", "racing_diffusion_3", "ddm_par2_no_bias", "ornstein"])
def test_corrected_coarse_steps_are_closer_to_fine_steps_than_plain_coarse_ones(name):
    model = get_model(name)
    theta = {
        "race_no_bias_3": [1.0, 0.5, 0.2, 1.5, 0.3, 0.2],
        "racing_diffusion_3": [1.5, 1.0, 0.5, 0.5, 1.2, 0.2],
        "ddm_par2_no_bias": [1.0, 0.5, -0.5, 1.0, 0.3],
        "ornstein": [1.0, 1.0, 0.4, 0.5, 0.2],
    }[name]
    theta, limit, n = np.array([theta]), np.array([20.0]), 20_000
    fine, _ = simulation.simulate(model, theta, limit, "continuous", 2.5e-4, n, seed=1)
    plain, _ = simulation.simulate(model, theta, limit, "euler", 1e-2, n, seed=2)
    corrected, _ = simulation.simulate(model, theta, limit, "continuous", 1e-2, n, seed=3)
    far = stats.ks_2samp(fine[0], plain[0], nan_policy="omit").statistic
    near = stats.ks_2samp(fine[0], corrected[0], nan_policy="omit").statistic
    assert near < 0.5 * far


def test_the_same_seed_gives_the_same_trials_and_leaves_numpy_alone():
    model = get_model("full_ddm_rv")
    theta = sample_theta(model, 2, np.random.default_rng(1))
    before = np.random.get_state()[1].copy()
    first, second = (
        simulation.simulate(model, theta, np.full(2, 20.0), "continuous", 1e-2, 200, seed=7) for _ in range(2)
    )
    assert np.array_equal(first[0], second[0], equal_nan=True)
    assert np.array_equal(before, np.random.get_state()[1])


def test_levy_has_no_continuous_target():
    model = get_model("levy")
    with pytest.raises(UserError, match=r"Set data\.target: euler"):
        densities(model, np.array([[0.0, 1.0, 0.5, 1.5, 0.1]]), Data(n_trajectories=100), np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_has_labels(name):
    model = get_model(name)
    rng = np.random.default_rng(1)
    theta = sample_theta(model, 2, rng)
    data = Data(engine="simulation", target="euler", n_trajectories=100, delta_t=1e-2, max_t=8.0)
    density = densities(model, theta, data, rng)
    total = density.choice_probability().sum(axis=1) + density.omission_probability()
    assert np.allclose(total, 1.0)
    rt, choice = density.sample(20, rng)
    drawn = ~np.isnan(rt).all(axis=1)
    assert np.isin(choice[drawn], model.choices).all()
    assert np.isfinite(density.log_density(rt, np.nan_to_num(choice, nan=model.choices[0]))[drawn]).mean() > 0.99
