"""The simulation engine: omissions, targets, determinism, and that every registered model works."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lanline.config import Data
from lanline.engines import densities, engines_of, simulation
from lanline.engines.overshoot import OVERSHOOT, stable_overshoot
from lanline.errors import UserError
from lanline.models import get_model, model_names
from lanline.theta import sample_theta


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


@pytest.mark.parametrize("name", ["racing_diffusion_3", "levy", "ornstein"])
def test_corrected_coarse_steps_are_closer_to_fine_steps_than_plain_coarse_ones(name):
    model = get_model(name)
    theta = {
        "racing_diffusion_3": [1.5, 1.0, 0.5, 0.5, 1.2, 0.2],
        "levy": [0.5, 0.7, 0.6, 1.7, 0.2],
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


def test_stable_steps_overshoot_like_gaussian_ones_at_alpha_2_and_without_a_jump_at_1():
    # A stable step with alpha = 2 has the variance 2 delta_t.
    gaussian = OVERSHOOT * np.sqrt(2 * 1e-3)
    assert stable_overshoot(2.0, 1.0, 1e-3) == pytest.approx(gaussian, rel=1e-9)
    near = [stable_overshoot(alpha, 1.0, 1e-3) for alpha in (1.0, 1.001, 1.01)]
    assert np.all(np.diff(near) > 0)
    assert near[2] < 1.2 * near[0] < 3e-3


@pytest.mark.parametrize(("name", "variance"), [("ddm", 1.0), ("levy", 2.0)])
@pytest.mark.parametrize("start", [[0.3, 0.5], [0.3, 0.1], [0.6, 0.1], [1.5, 0.7]])
def test_corrected_steps_err_less_than_the_sampling_noise(name, variance, start):
    model, n, (a, z) = get_model(name), 100_000, start
    step = simulation.step(model, "continuous", 1e-3)
    theta = np.array([[0.5, a, z, *([2.0] if name == "levy" else []), 0.0]])  # levy with alpha = 2
    rt, choice = simulation.simulate(model, theta, np.array([20.0]), "continuous", step, n, seed=5)
    scaled = np.array([[0.5 / np.sqrt(variance), a / np.sqrt(variance), z, 0.0]])
    exact, exact_choice = densities(get_model("ddm"), scaled, Data(), np.random.default_rng(0)).sample(
        n, np.random.default_rng(6)
    )
    for value in model.choices:
        some, others = (np.sort(r[c == value]) for r, c in ((rt, choice), (exact, exact_choice)))
        at = np.concatenate([some, others])
        difference = np.searchsorted(some, at, "right") - np.searchsorted(others, at, "right")
        assert np.abs(difference).max() / n < 1.36 / np.sqrt(20_000)


def test_levy_trials_of_a_theta_do_not_depend_on_the_theta_before():
    model = get_model("levy")
    other, theta = [0.0, 1.0, 0.5, 1.0, 0.1], [0.0, 0.8, 0.5, 2.0, 0.1]
    first, second = (
        simulation.simulate(model, np.array([before, theta]), np.full(2, 20.0), "euler", 1e-2, 50, seed=7)
        for before in (other, theta)
    )
    assert np.array_equal(first[0][1], second[0][1], equal_nan=True)


def test_a_simulator_without_a_known_correction_has_no_continuous_target():
    model = replace(get_model("ddm_par2"), simulator="of_a_later_version")
    with pytest.raises(UserError, match=r"simulator of_a_later_version\. Set data\.target: euler"):
        simulation.check_target(model, "continuous")
    simulation.check_target(model, "euler")


@pytest.mark.parametrize("name", ["race_no_bias_3", "ddm_seq2_no_bias", "ornstein"])
def test_the_euler_target_is_the_walk_of_ssm_simulators(name):
    from ssms.basic_simulators.simulator import simulator

    model, n, coarse = get_model(name), 10_000, 0.04
    theta = np.array([[0.7 if param[0] in "va" else model.bounds[param][0] for param in model.params]])
    theirs = simulator(theta, name, delta_t=coarse, n_samples=n, random_state=3)["rts"].ravel()
    rt = {
        target: simulation.simulate(model, theta, np.array([20.0]), target, coarse, n, seed=4)[0][0]
        for target in ("euler", "continuous")
    }
    assert stats.ks_2samp(rt["euler"], theirs).pvalue > 1e-3
    assert stats.ks_2samp(rt["continuous"], theirs).pvalue < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("target", ["euler", "continuous"])
@pytest.mark.parametrize("name", [name for name in model_names() if "simulation" in engines_of(get_model(name))])
def test_every_model_has_labels_that_its_seed_determines(name, target):
    model = get_model(name)
    rng = np.random.default_rng(1)
    theta = sample_theta(model, 2, rng)
    data = Data(engine="simulation", target=target, n_trajectories=100, delta_t=1e-2, max_t=8.0)
    density = densities(model, theta, data, rng)
    total = density.choice_probability().sum(axis=1) + density.omission_probability()
    assert np.allclose(total, 1.0)
    again, between, first = (
        densities(model, values, data, np.random.default_rng(2)).rt for values in (theta, theta[::-1], theta)
    )
    assert np.array_equal(again, first, equal_nan=True)
    assert not np.array_equal(again, between, equal_nan=True)
    rt, choice = density.sample(20, rng)
    drawn = ~np.isnan(rt).all(axis=1)
    assert np.isin(choice[drawn], model.choices).all()
    assert np.isfinite(density.log_density(rt, np.nan_to_num(choice, nan=model.choices[0]))[drawn]).mean() > 0.99
