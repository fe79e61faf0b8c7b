"""Specification, initial weights and files of a network."""

import json

import numpy as np
import pytest

from lanline.config import Network
from lanline.errors import UserError
from lanline.models import get_model
from lanline.networks.artifacts import read_history, read_network, write_network
from lanline.networks.initial import initial_weights
from lanline.networks.specification import NetworkSpec, Standardisation, forward, make_spec

SPEC = make_spec(
    Network(name="lan", features="raw", hidden_layers=[20, 10], activations=["tanh", "relu"]), get_model("ddm")
)
X = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)


def test_specification_of_a_lan_takes_theta_rt_and_choice():
    assert SPEC.inputs == ("v", "a", "z", "t", "rt", "choice")
    assert SPEC.shapes == [(20, 6), (10, 20), (1, 10)]
    assert NetworkSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


def test_forward_is_the_written_out_formula():
    w = {name: array.astype(np.float64) for name, array in initial_weights(SPEC, 3).items()}
    w["layer_0.bias"] += 0.3
    h1 = np.tanh(X.astype(np.float64) @ w["layer_0.weight"].T + w["layer_0.bias"])
    h2 = np.maximum(h1 @ w["layer_1.weight"].T + w["layer_1.bias"], 0)
    expected = h2 @ w["layer_2.weight"][0] + w["layer_2.bias"][0]
    np.testing.assert_allclose(forward(SPEC, w, X.astype(np.float64)), expected, rtol=1e-12)


def test_initial_weights_come_from_the_seed_alone_and_have_glorot_variance():
    spec = make_spec(
        Network(name="lan", features="raw", hidden_layers=[300, 300], activations=["tanh"] * 2), get_model("ddm")
    )
    weights, again, other = (initial_weights(spec, seed) for seed in (1, 1, 2))
    assert all((weights[name] == again[name]).all() for name in weights)
    assert not np.array_equal(weights["layer_0.weight"], other["layer_0.weight"])
    assert weights["layer_1.weight"].var() == pytest.approx(2 / 600, rel=0.05)
    assert not weights["layer_1.bias"].any()


def test_folded_weights_give_for_raw_inputs_what_the_trained_ones_give_for_standardised_inputs():
    raw = (X * [3, 0.1, 1, 20, 5, 1] + [0, 7, 0, 100, 5, 1]).astype(np.float32)
    standardisation = Standardisation.of(raw)
    z = standardisation.apply(raw)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-4)
    weights = initial_weights(SPEC, 1)
    folded = standardisation.fold(weights)
    np.testing.assert_allclose(forward(SPEC, folded, raw), forward(SPEC, weights, z), atol=1e-4)


def test_a_constant_column_is_left_in_its_scale():
    x = X.copy()
    x[:, 2] = 5
    assert np.isfinite(Standardisation.of(x).apply(x)).all()


@pytest.fixture
def folder(tmp_path):
    weights = initial_weights(SPEC, 1)
    history = [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}]
    write_network(tmp_path, SPEC, weights, {"run": "r1"}, history, lambda x: forward(SPEC, weights, x), X)
    return tmp_path


def test_a_network_is_read_back_as_it_was_written(folder):
    spec, weights, identity = read_network(folder)
    assert spec == SPEC
    assert identity == {"run": "r1"}
    assert all((weights[name] == array).all() for name, array in initial_weights(SPEC, 1).items())
    assert read_history(folder / "history.csv")[1] == {"epoch": 2, "train_loss": 0.25}


def test_damaged_networks_are_refused_with_the_file_name(folder):
    description = json.loads((folder / "network.json").read_text())
    description["specification"]["layers"] = [20, 11, 1]
    (folder / "network.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"weights\.safetensors does not fit"):
        read_network(folder)
    (folder / "network.json").write_text("{")
    with pytest.raises(UserError, match=r"network\.json"):
        read_network(folder)
    (folder / "network.json").unlink()
    with pytest.raises(UserError, match=r"network\.json: No such file"):
        read_network(folder)
