"""The network as HSSM takes it: a single-trial graph of Gemm nodes, checked against its own trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lanline.files import atomic_path
from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name

OPSET = 17
IR_VERSION = 8  # the one that goes with opset 17: older runtimes refuse a newer one
PARITY_TOLERANCE = 1e-4

_OPERATORS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "elu": "Elu"}


class ParityError(RuntimeError):
    """The exported network does not compute what the trained one does."""


def write_onnx(path: Path, spec: NetworkSpec, weights: Weights, metadata: dict[str, str]) -> None:
    """Write the network with raw inputs, shape (1, D), and one output, shape (1, 1).

    Args:
        path: file to write.
        spec: the network; its inputs are the columns params..., rt, choice.
        weights: for raw inputs (`Standardisation.fold`).
        metadata: written into the file's metadata beside model, params and network type.
    """
    properties = {
        "model": spec.model,
        "params": ",".join(spec.params),
        "inputs": ",".join(spec.inputs),
        "network_type": spec.network_type,
        **metadata,
    }
    with atomic_path(path) as temporary:
        onnx.save_model(_graph(spec, weights, properties), temporary)


def _graph(spec: NetworkSpec, weights: Weights, properties: dict[str, str]) -> onnx.ModelProto:
    nodes, constants, value = [], [], "input"
    for layer in range(len(spec.layers)):
        names = [weight_name(layer), bias_name(layer)]
        constants += [numpy_helper.from_array(weights[name], name) for name in names]
        last = layer == len(spec.layers) - 1
        out = "output" if last else f"layer_{layer}.sum"
        nodes.append(helper.make_node("Gemm", [value, *names], [out], transB=1))
        value = out
        if not last:
            value = f"layer_{layer}.out"
            activation_nodes, activation_constants = _activation(spec.activations[layer], out, value)
            nodes += activation_nodes
            constants += activation_constants
    graph = helper.make_graph(
        nodes,
        f"{spec.model}_{spec.network_type}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, len(spec.inputs)])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="lanline", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


def _activation(name: str, value: str, out: str) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Nodes and constants of one activation. Opset 17 has no Gelu: it is z/2 (1 + erf(z / sqrt 2))."""
    if name != "gelu":
        return [helper.make_node(_OPERATORS[name], [value], [out])], []
    numbers = {f"{out}.root": np.sqrt(0.5), f"{out}.one": 1.0, f"{out}.half": 0.5}
    constants = [numpy_helper.from_array(np.array(number, np.float32), key) for key, number in numbers.items()]
    root, one, half = numbers
    steps = [
        ("Mul", [value, root], f"{out}.scaled"),
        ("Erf", [f"{out}.scaled"], f"{out}.erf"),
        ("Add", [f"{out}.erf", one], f"{out}.gate"),
        ("Mul", [value, f"{out}.gate"], f"{out}.double"),
        ("Mul", [f"{out}.double", half], out),
    ]
    return [helper.make_node(operator, inputs, [result]) for operator, inputs, result in steps], constants


def run_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    """Outputs (n,) of the file for raw inputs ``x`` (n, D), one trial at a time as its consumers call it."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: row[None, :]})[0].squeeze() for row in x.astype(np.float32)])


def check_parity(path: Path, trained: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    """Compare the file with the trainer's own forward pass.

    Args:
        path: ONNX file.
        trained: the trainer's forward pass: raw inputs (n, D) to outputs (n,).
        x: raw inputs (n, D) inside the bounds.

    Returns:
        The largest difference, relative to max(1, |output|).

    Raises:
        ParityError: it is larger than 1e-4, or not a number.
    """
    expected = trained(x)
    difference = np.abs(run_onnx(path, x) - expected) / np.maximum(1, np.abs(expected))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] <= PARITY_TOLERANCE:
        raise ParityError(
            f"{path} differs from the trained network by {difference[worst]:.2g} "
            f"(allowed: {PARITY_TOLERANCE:g}) for the inputs {x[worst].tolist()}"
        )
    return float(difference[worst])
