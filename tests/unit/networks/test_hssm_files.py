"""hssm.json and a cpn's files for the released HSSM; tests/hssm has the real one load them."""

import numpy as np
import pytest

from lanline.config import Network
from lanline.errors import UserError
from lanline.hssm import backends, choice_file, description, loads, model_config, read_description, with_extra_fields
from lanline.models import get_model
from lanline.networks.artifacts import write_hssm_files
from lanline.networks.heads import exported_values
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import write_onnx
from lanline.networks.onnx_files import run_onnx
from lanline.networks.specification import forward, make_spec


def spec_of(model, network_type="lan", activation="tanh"):
    network = Network(name="n", network_type=network_type, hidden_layers=[8], activations=[activation])
    return make_spec(network, get_model(model))


def test_the_configuration_has_the_networks_order_and_its_bounds(tmp_path):
    spec = spec_of("racing_diffusion_3")
    bounds = {**get_model("racing_diffusion_3").bounds, "t": (0.1, 0.4)}
    write_hssm_files(tmp_path, spec, initial_weights(spec, 1), {}, bounds)
    config = model_config(tmp_path / "model.onnx", "pytensor")
    assert config["list_params"] == ["v0", "v1", "v2", "A", "b", "t"]
    assert config["bounds"] == bounds
    assert config["choices"] == (0, 1, 2)
    assert config["response"] == ("rt", "response")
    assert config["backend"] == "pytensor"
    prior = config["default_priors"]["t"]  # HSSM starts it at 0.025, outside
    assert prior == {"name": "Uniform", "lower": 0.1, "upper": 0.4, "initval": pytest.approx(0.106)}
    assert "extra_fields" not in config


def test_a_bound_that_is_a_parameter_is_that_parameters_own_bound():
    found = description(spec_of("full_ddm_rv"), get_model("full_ddm_rv").bounds)
    assert found["bounds"]["st"] == [0.001, found["bounds"]["t"][1]]


def test_a_deadline_is_a_column_of_the_data():
    found = description(spec_of("ddm_deadline", "opn"), get_model("ddm_deadline").bounds)
    assert (found["model"], found["list_params"], found["extra_fields"]) == ("ddm", ["v", "a", "z", "t"], ["deadline"])
    assert found["inputs"] == ["v", "a", "z", "t", "deadline"]


@pytest.mark.parametrize("model", ["ddm", "race_3"])
def test_a_cpn_has_a_file_for_each_choice(tmp_path, model):
    spec = spec_of(model, "cpn")
    weights = initial_weights(spec, 1)
    paths = write_hssm_files(tmp_path, spec, weights, {}, get_model(model).bounds)
    assert [path.name for path in paths] == [choice_file(choice) for choice in spec.choices]
    x = np.random.default_rng(1).normal(size=(50, len(spec.params))).astype(np.float32)
    for path, choice in zip(paths, spec.choices, strict=True):
        expected = exported_values(spec, forward(spec, weights, x), np.full(50, choice))
        np.testing.assert_allclose(run_onnx(path, x), expected, atol=1e-5)
    assert choice_file(spec.choices[-1]) in loads(spec)
    assert loads(spec_of(model)) is None


def test_an_extra_field_is_ignored(tmp_path):
    spec = spec_of("ddm_deadline")
    write_onnx(tmp_path / "model.onnx", spec, initial_weights(spec, 1), {})
    write_hssm_files(tmp_path, spec, initial_weights(spec, 1), {}, get_model("ddm_deadline").bounds)
    wider = with_extra_fields(tmp_path / "model.onnx", ["response"], tmp_path / "wider")
    assert read_description(wider)["inputs"] == ["v", "a", "z", "t", "deadline", "response", "rt", "response"]
    assert model_config(wider)["extra_fields"] == ["deadline", "response"]
    x = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    np.testing.assert_allclose(run_onnx(wider, x), run_onnx(tmp_path / "model.onnx", np.delete(x, 5, 1)), atol=1e-6)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"hssm\.json: No such file.*train the network again"):
        model_config(tmp_path / "model.onnx")
    spec = spec_of("ddm_deadline", "opn", "elu")
    write_hssm_files(tmp_path, spec, {}, {}, get_model("ddm_deadline").bounds)
    with pytest.raises(UserError, match="is of type opn, not lan: give it as loglik_missing_data"):
        model_config(tmp_path)
    assert backends(spec.activations) == ("jax",)
    for spec in (spec_of("ddm", activation="relu"), spec_of("ddm")):
        write_hssm_files(tmp_path, spec, {}, {}, get_model("ddm").bounds)
        with pytest.raises(UserError, match="pytensor backend does not compute its activations; jax does"):
            model_config(tmp_path, "pytensor")
