"""Rows of training data: bounds, mixture, labels, and the same bytes from the same configuration."""

import numpy as np
import pytest

from lanline.config import Data, Mixture, ModelEntry
from lanline.dataset.rows import BLOCK_THETAS, block_rows, n_blocks, shard_blocks, shard_shapes
from lanline.engines import densities
from lanline.engines.simulation import simulate
from lanline.models import get_model, model_names
from lanline.theta import sample_theta

DATA = Data(thetas_per_shard=2 * BLOCK_THETAS + 3, rows_per_theta=50)


def shard_rows(model, data, seed, shard):
    """Whole arrays of a shard."""
    blocks = list(shard_blocks(model, data, seed, shard))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def inside_bounds(model, theta) -> bool:
    for i, name in enumerate(model.params):
        lower, upper = (
            theta[:, model.params.index(bound)] if isinstance(bound, str) else bound for bound in model.bounds[name]
        )
        if not ((theta[:, i] >= lower) & (theta[:, i] <= upper)).all():
            return False
    return True


@pytest.mark.parametrize("name", model_names())
def test_theta_lies_within_the_bounds(name):
    model = get_model(name)
    theta = sample_theta(model, 300, np.random.default_rng(1))
    assert theta.shape == (300, len(model.params))
    assert inside_bounds(model, theta)


def test_bounds_that_are_parameters_and_constraints_of_the_registry():
    model = get_model("full_ddm_rv")
    theta = sample_theta(model, 1000, np.random.default_rng(1))
    t, st = theta[:, model.params.index("t")], theta[:, model.params.index("st")]
    assert (st <= t).all()
    assert st.max() > 1.5  # a fixed bound would not reach this far
    lba = get_model("lba_angle_3")
    theta = sample_theta(lba, 1000, np.random.default_rng(1))
    assert (theta[:, lba.params.index("a")] > theta[:, lba.params.index("z")]).all()
    summed = get_model("lba_3_vs_constraint")
    theta = sample_theta(summed, 1000, np.random.default_rng(1))
    assert theta[:, :3].sum(axis=1) == pytest.approx(np.ones(1000))


def test_narrower_bounds_are_kept():
    model = ModelEntry(name="ddm", bounds={"v": (-0.5, 0.5)}).resolve()
    rows = shard_rows(model, DATA, 1, 0)["lan_data"]
    assert np.abs(rows[:, 0]).max() <= 0.5


@pytest.mark.parametrize("name", ["ddm", "angle", "ddm_deadline"])
def test_shapes_mixture_and_labels(name):
    model = get_model(name)
    rows = shard_rows(model, DATA, 1, 0)
    data, labels = rows["lan_data"], rows["lan_labels"]
    n = DATA.rows_per_shard
    assert data.shape == (n, len(model.params) + 2)
    assert labels.shape == (n,)
    assert data.dtype == labels.dtype == np.float32
    assert np.isfinite(data).all()
    assert np.isfinite(labels).all()
    assert inside_bounds(model, data)
    assert set(np.unique(data[:, -1])) == set(model.choices)
    rt = data[:, -2]
    assert (rt < 0).sum() == 5 * DATA.thetas_per_shard  # 0.1 of 50 rows of each theta
    assert rt.min() >= -1.0
    assert rt.max() <= DATA.max_t
    floor = np.float32(DATA.floor)
    assert (labels[rt < 0] == floor).all()
    assert labels.min() == floor
    per_theta = rt.reshape(DATA.thetas_per_shard, 50)
    assert ((per_theta < 0).sum(axis=1) == 5).all()


def test_labels_are_the_density_at_the_stored_values():
    model = get_model("angle")
    rows = block_rows(model, DATA, 1, 0, 1)
    stored = rows["lan_data"].astype(float).reshape(BLOCK_THETAS, 50, -1)
    density = densities(model, stored[:, 0, :-2], DATA, np.random.default_rng(0))
    expected = np.maximum(density.log_density(stored[:, :, -2], stored[:, :, -1]), DATA.floor)
    assert np.array_equal(rows["lan_labels"].reshape(BLOCK_THETAS, 50), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "settings"), [("ddm", {}), ("race_no_bias_2", {"n_trajectories": 100, "delta_t": 0.02})]
)
def test_the_same_bytes_in_any_order(name, settings):
    model = get_model(name)
    data = DATA.model_copy(update=settings)
    whole = shard_rows(model, data, 7, 3)
    blocks = {block: block_rows(model, data, 7, 3, block) for block in reversed(range(n_blocks(data)))}
    for key in whole:
        again = np.concatenate([blocks[block][key] for block in range(n_blocks(data))])
        assert whole[key].tobytes() == again.tobytes()
    assert whole["lan_data"].tobytes() != shard_rows(model, data, 8, 3)["lan_data"].tobytes()
    assert whole["lan_data"].tobytes() != shard_rows(model, data, 7, 4)["lan_data"].tobytes()


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])
def test_any_mixture_fills_every_row(rows, shares):
    data = Data(
        thetas_per_shard=2,
        rows_per_theta=rows,
        mixture=Mixture(density=shares[0], uniform=shares[1], negative=shares[2]),
    )
    out = shard_rows(get_model("ddm"), data, 1, 0)
    assert out["lan_data"].shape == (2 * rows, 6)
    assert np.isfinite(out["lan_data"]).all()


def test_thetas_without_responses_have_uniform_rows():
    model = ModelEntry(name="ddm_deadline", bounds={"t": (1.0, 2.0), "deadline": (0.1, 0.2)}).resolve()
    rows = shard_rows(model, DATA, 1, 0)
    assert np.isfinite(rows["lan_data"]).all()
    assert (rows["lan_labels"] == np.float32(DATA.floor)).all()


# --- probabilities ------------------------------------------------------------------------------------------------
def test_choice_probabilities_of_the_ddm_are_those_of_the_textbook():
    """P(upper) of a Wiener process from x0 between +-a: (1 - exp(-2 v (x0 + a))) / (1 - exp(-4 v a)) (Cox & Miller)."""
    model = ModelEntry(name="ddm", bounds={"a": (0.3, 1.0)}).resolve()  # so narrow that 20 s are for ever
    rows = shard_rows(model, DATA, 1, 0)
    v, a, z, _ = rows["cpn_data"].astype(float).T
    expected = np.expm1(-4 * v * a * z) / np.expm1(-4 * v * a)
    np.testing.assert_allclose(rows["cpn_labels"], expected, atol=2e-3)
    np.testing.assert_allclose(rows["gonogo_labels"], 1 - expected, atol=2e-3)
    assert "opn_labels" not in rows
    assert np.array_equal(rows["cpn_data"], rows["lan_data"][::50, :-2])


@pytest.mark.parametrize("name", ["angle_deadline", "lba3", "lba2_deadline", "race_no_bias_2_deadline", "poisson_race"])
def test_probabilities_are_the_shares_of_simulated_trials(name):
    """Of all trials: omissions, and those without the upper choice. Of those with a response: choices."""
    model = get_model(name)
    data = Data(thetas_per_shard=BLOCK_THETAS, rows_per_theta=1, delta_t=0.002, n_trajectories=4000, max_t=10.0)
    rows = shard_rows(model, data, 2, 0)
    theta = rows["cpn_data"].astype(float)
    limit = np.minimum(data.max_t, theta[:, -1]) if "deadline" in model.params else np.full(len(theta), data.max_t)
    rt, choice = simulate(model, theta, limit, "continuous", 0.002, 4000, seed=9)
    omitted = np.isnan(rt).mean(axis=1)
    shares = np.stack([(choice == value).mean(axis=1) for value in model.choices], axis=1)
    noise = 5 * np.sqrt(0.25 / 4000)
    if "deadline" in model.params:
        np.testing.assert_allclose(rows["opn_labels"], omitted, atol=noise)
        assert 0.01 < omitted.mean() < 0.9
    np.testing.assert_allclose(rows["gonogo_labels"], 1 - shares[:, -1], atol=noise)
    responding = omitted < 0.8
    given = shares[responding] / (1 - omitted[responding])[:, None]
    expected = given if len(model.choices) > 2 else given[:, 1]
    np.testing.assert_allclose(rows["cpn_labels"][responding], expected, atol=noise * np.sqrt(5))
    assert responding.sum() > 4


@pytest.mark.parametrize("name", ["ddm", "ddm_deadline", "lba3", "race_no_bias_4_deadline"])
def test_a_shard_has_the_announced_arrays(name):
    model, data = get_model(name), DATA.model_copy(update={"n_trajectories": 50, "delta_t": 0.05})
    rows = shard_rows(model, data, 1, 0)
    assert {key: array.shape for key, array in rows.items()} == shard_shapes(model, data)
    assert all(array.dtype == np.float32 for array in rows.values())
    labels = [array for key, array in rows.items() if key.endswith("_labels") and key != "lan_labels"]
    assert all(((values >= 0) & (values <= 1)).all() for values in labels)
    if len(model.choices) > 2:
        np.testing.assert_allclose(rows["cpn_labels"].sum(axis=1), 1, atol=1e-6)


def test_thetas_that_never_respond_have_even_choices():
    model = ModelEntry(name="ddm_deadline", bounds={"t": (1.0, 2.0), "deadline": (0.1, 0.2)}).resolve()
    rows = shard_rows(model, DATA, 1, 0)
    assert (rows["cpn_labels"] == 0.5).all()
    assert (rows["opn_labels"] == 1).all()
    assert (rows["gonogo_labels"] == 1).all()


# --- Sobol sequences ----------------------------------------------------------------------------------------------
def sobol_theta(data, seed, shard, model="ddm"):
    return shard_rows(get_model(model), data, seed, shard)["cpn_data"]


def test_sobol_sampling_fills_the_bounds_more_evenly():
    """Sobol points in a base 2: each of 64 equal parts of a parameter's range has exactly one of 64 points."""
    data = Data(thetas_per_shard=64, rows_per_theta=1, theta_sampling="sobol")
    theta = sobol_theta(data, 1, 0)
    for column, (lower, upper) in enumerate(get_model("ddm").bounds.values()):
        assert sorted(((theta[:, column] - lower) / (upper - lower) * 64).astype(int)) == list(range(64))
    uniform = sobol_theta(data.model_copy(update={"theta_sampling": "uniform"}), 1, 0)
    assert len(set((uniform[:, 2] * 100).astype(int))) < 60


def test_sobol_sequences_depend_on_seed_and_shard_and_not_on_the_order_of_blocks():
    data = Data(thetas_per_shard=2 * BLOCK_THETAS + 3, rows_per_theta=1, theta_sampling="sobol")
    whole = sobol_theta(data, 1, 0)
    assert len(np.unique(whole, axis=0)) == len(whole) == 2 * BLOCK_THETAS + 3
    last = block_rows(get_model("ddm"), data, 1, 0, 2)["cpn_data"]
    assert np.array_equal(last, whole[-3:])
    assert not np.isin(sobol_theta(data, 2, 0), whole).any()
    assert not np.isin(sobol_theta(data, 1, 1), whole).any()


def test_sobol_sampling_keeps_the_registrys_constraints():
    data = Data(thetas_per_shard=BLOCK_THETAS, rows_per_theta=1, theta_sampling="sobol")
    model = get_model("lba_angle_3")
    theta = sobol_theta(data, 1, 0, "lba_angle_3")
    assert (theta[:, model.params.index("a")] > theta[:, model.params.index("z")]).all()
