"""Rows of training data: bounds, mixture, labels, and the same bytes from the same configuration."""

import numpy as np
import pytest

from lanline.config import Data, Mixture, ModelEntry
from lanline.dataset.rows import BLOCK_THETAS, block_rows, n_blocks, sample_theta, shard_rows
from lanline.engines import densities
from lanline.models import get_model, model_names

DATA = Data(thetas_per_shard=2 * BLOCK_THETAS + 3, rows_per_theta=50)


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


def test_progress_counts_thetas():
    seen = []
    shard_rows(get_model("ddm"), DATA, 1, 0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 35), (32, 35), (35, 35)]
