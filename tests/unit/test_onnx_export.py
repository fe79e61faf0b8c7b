"""The ONNX file: HSSM's contract, and equality with the network that it was made from."""

from typing import get_args

import numpy as np
import onnx
import pytest

from lanline.config import Activation, Network
from lanline.models import get_model
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import ParityError, check_parity, run_onnx, write_onnx
from lanline.networks.specification import forward, make_spec

X = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)


def network(activation="tanh"):
    spec = make_spec(Network(name="lan", hidden_layers=[16, 8], activations=[activation] * 2), get_model("ddm"))
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
        "run_id": "abc",
    }


@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_file_computes_what_the_network_computes(tmp_path, activation):
    spec, weights = network(activation)
    write_onnx(tmp_path / "n.onnx", spec, weights, {})
    np.testing.assert_allclose(run_onnx(tmp_path / "n.onnx", X), forward(spec, weights, X), atol=1e-5)
    assert check_parity(tmp_path / "n.onnx", lambda x: forward(spec, weights, x), X) < 1e-5


@pytest.mark.parametrize("wrong", [2e-4, np.nan])
def test_a_file_that_differs_from_its_trainer_is_an_error(tmp_path, wrong):
    spec, weights = network()
    write_onnx(tmp_path / "n.onnx", spec, weights, {})

    def trained(x):
        outputs = forward(spec, weights, x)
        outputs[17] += wrong
        return outputs

    with pytest.raises(ParityError, match=r"n\.onnx differs"):
        check_parity(tmp_path / "n.onnx", trained, X)
