"""The ONNX file: HSSM's contract, and equality with the network that it was made from."""

from typing import get_args

import numpy as np
import onnx
import pytest

from lanline.config import Activation, Network
from lanline.models import get_model
from lanline.networks.heads import exported_values
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import ParityError, check_parity, write_onnx
from lanline.networks.onnx_files import run_onnx
from lanline.networks.specification import forward, make_spec

X = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)


def network(activation="tanh"):
    spec = make_spec(
        Network(name="lan", features="raw", hidden_layers=[16, 8], activations=[activation] * 2), get_model("ddm")
    )
    return spec, initial_weights(spec, 1)


def test_the_file_keeps_the_single_trial_contract(tmp_path):
    path = tmp_path / "ddm.onnx"
    spec, weights = network()
    write_onnx(path, spec, weights, {"run_id": "abc"})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    (value,) = model.graph.input
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [1, 6]
    assert len(model.graph.output) == 1
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Tanh", "Gemm", "Tanh", "Gemm"]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties == {
        "model": "ddm",
        "params": "v,a,z,t",
        "inputs": "v,a,z,t,rt,choice",
        "network_type": "lan",
        "choices": "-1,1",
        "output": "log p(rt, choice | params)",
        "features": "raw",
        "run_id": "abc",
    }


@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_file_computes_what_the_network_computes(tmp_path, activation):
    spec, weights = network(activation)
    write_onnx(tmp_path / "n.onnx", spec, weights, {})
    np.testing.assert_allclose(run_onnx(tmp_path / "n.onnx", X), forward(spec, weights, X), atol=1e-5)
    assert check_parity(tmp_path / "n.onnx", lambda x: forward(spec, weights, x), X) < 1e-5


PROBABILITIES = [("ddm", "cpn"), ("race_3", "cpn"), ("lba2", "cpn"), ("ddm_deadline", "opn"), ("angle", "gonogo")]


@pytest.mark.parametrize(("model", "network_type"), PROBABILITIES)
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_probability_networks_give_log_probabilities_for_raw_inputs(tmp_path, model, network_type, scale):
    """Also where the logits reach hundreds: no -inf, no nan."""
    description = Network(name="n", network_type=network_type, hidden_layers=[16], activations=["tanh"])
    spec = make_spec(description, get_model(model))
    weights = initial_weights(spec, 1)
    weights["layer_1.weight"] *= scale
    write_onnx(tmp_path / "n.onnx", spec, weights, {})
    graph = onnx.load(tmp_path / "n.onnx").graph
    params = get_model(model).params
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [1, len(spec.exported_inputs)]
    assert spec.exported_inputs == ((*params, "choice") if network_type == "cpn" else params)
    assert "LogSoftmax" not in {node.op_type for node in graph.node}  # -inf from -88 on in HSSM's runtime
    x = np.random.default_rng(1).normal(size=(100, len(params))).astype(np.float32)
    outputs = forward(spec, weights, x.astype(np.float64))
    totals = np.zeros(100)
    for choice in spec.choices if network_type == "cpn" else (0,):
        asked = np.full(100, choice)
        expected = exported_values(spec, outputs, asked)
        inputs = np.column_stack([x, asked]).astype(np.float32)[:, : len(spec.exported_inputs)]
        actual = run_onnx(tmp_path / "n.onnx", inputs)
        assert np.isfinite(actual).all()
        np.testing.assert_allclose(actual, expected, atol=1e-6 * max(10, np.abs(outputs).max()))
        totals += np.exp(actual)
    if network_type == "cpn":
        np.testing.assert_allclose(totals, 1, atol=1e-5)
    assert (np.abs(outputs).max() > 200) == (scale > 1)


def test_a_choice_that_the_model_does_not_have_is_impossible(tmp_path):
    spec = make_spec(Network(name="n", network_type="cpn"), get_model("ddm"))
    write_onnx(tmp_path / "n.onnx", spec, initial_weights(spec, 1), {})
    assert run_onnx(tmp_path / "n.onnx", np.array([[0.5, 1.5, 0.5, 0.3, 0.0]]))[()] < -1e5


@pytest.mark.parametrize(("which", "wrong"), [(17, 2e-3), (17, np.nan), (slice(None), 3e-5)])
def test_a_file_that_differs_from_its_trainer_is_an_error(tmp_path, which, wrong):
    spec, weights = network()
    write_onnx(tmp_path / "n.onnx", spec, weights, {})

    def trained(x):
        outputs = forward(spec, weights, x)
        outputs[which] += wrong
        return outputs

    with pytest.raises(ParityError, match=r"n\.onnx differs"):
        check_parity(tmp_path / "n.onnx", trained, X)


def test_rounding_of_the_trainers_inputs_in_a_steep_place_is_no_error(tmp_path):
    """An angle network of config/production.yaml differed by 1.1e-4 at an rt 4.5 ms above t, typically by 4e-7."""
    spec, weights = network()
    write_onnx(tmp_path / "n.onnx", spec, weights, {})
    steep = np.zeros(len(X), np.float32)
    steep[17] = 2e-4
    assert check_parity(tmp_path / "n.onnx", lambda x: forward(spec, weights, x) + steep, X) > 1e-4
