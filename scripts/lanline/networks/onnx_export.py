"""The network as HSSM takes it: a single-trial graph of Gemm nodes, checked against its own trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from lanline.files import atomic_path
from lanline.networks.onnx_files import run_onnx
from lanline.networks.onnx_nodes import Nodes, activation, input_scale, probability_head, sigmoid_as_tanh
from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name
from lanline.networks.structure.onnx_nodes import structure_nodes

OPSET = 17
IR_VERSION = 8  # the one that goes with opset 17: older runtimes refuse a newer one
TYPICAL_DIFFERENCE, LARGEST_DIFFERENCE = 1e-5, 1e-3

OUTPUTS = {
    "lan": "log p(rt, choice | params)",
    "cpn": "log P(choice | params, a response)",
    "opn": "log P(no response before the deadline | params)",
    "gonogo": "log P(no go response | params)",
}


class ParityError(RuntimeError):
    """The exported network does not compute what the trained one does."""


def write_onnx(
    path: Path, spec: NetworkSpec, weights: Weights, metadata: dict[str, str], choice: int | None = None
) -> None:
    """Write the network with raw inputs, shape (1, D), and one output, shape (1, 1).

    The output is `lanline.networks.heads.exported_values`. All nodes work on rank 1 too, as HSSM calls them.

    Args:
        path: file to write.
        spec: the network; its inputs are the columns ``spec.exported_inputs``.
        weights: for raw inputs (`Standardisation.fold`).
        metadata: written into the file's metadata beside model, params and network type.
        choice: of a cpn: the one choice whose log-probability the file returns; its inputs are the parameters alone.
    """
    properties = {
        "model": spec.model,
        "params": ",".join(spec.params),
        "inputs": ",".join(spec.exported_inputs if choice is None else spec.inputs),
        "network_type": spec.network_type,
        "choices": ",".join(map(str, spec.choices)),
        "output": OUTPUTS[spec.network_type] if choice is None else f"log P(choice {choice} | params, a response)",
        "features": ",".join(spec.features) if spec.structure else "raw",
        **metadata,
    }
    with atomic_path(path) as temporary:
        onnx.save_model(_graph(spec, weights, properties, choice), temporary)


def _graph(
    spec: NetworkSpec, weights: Weights, properties: dict[str, str], choice: int | None = None
) -> onnx.ModelProto:
    columns = spec.exported_inputs if choice is None else spec.inputs
    weights = sigmoid_as_tanh(spec, weights)
    nodes, value, leading = Nodes(), "input", None
    if spec.structure:
        value, leading = structure_nodes(nodes, spec.structure)
    for layer in range(len(spec.layers)):
        names = [weight_name(layer), bias_name(layer)]
        last = layer == len(spec.layers) - 1
        weight, bias = (weights[name] for name in names)
        if layer == 0 and len(columns) > len(spec.inputs):
            weight = np.pad(weight, ((0, 0), (0, 1)))  # the choice comes in later
        if last and spec.gives_probabilities and len(weight) == 1:
            weight, bias = np.pad(weight, ((1, 0), (0, 0))), np.pad(bias, (1, 0))  # logits (0, u)
        scale = 1.0 if last else input_scale(spec.activations[layer])
        constants = [nodes.constant(scale * array, name) for array, name in zip((weight, bias), names, strict=True)]
        out = f"layer_{layer}.sum"
        if last:
            out = "logits" if spec.gives_probabilities else "rest" if leading else "output"
        nodes.add("Gemm", value, *constants, out=out, transB=1)
        value = out
        if not last:
            value = f"layer_{layer}.out"
            activation(nodes, spec.activations[layer], out, value)
    if spec.gives_probabilities:
        probability_head(nodes, spec, value, choice)
    elif leading:
        nodes.add("Add", value, leading, out="output")
    graph = helper.make_graph(
        nodes.nodes,
        f"{spec.model}_{spec.network_type}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, len(columns)])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])],
        nodes.constants,
    )
    model = helper.make_model(
        graph, producer_name="lanline", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_parity(path: Path, trained: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    """Compare the file with the trainer's own forward pass.

    Typically they differ by rounding. Where the density is steep, at an rt just above t, single values may differ by
    more: the trainer's inputs are standardised, and a float32 then holds less of the difference of rt and t.

    Args:
        path: ONNX file.
        trained: the trainer's forward pass: raw inputs (n, D) to values (n,).
        x: raw inputs (n, D) inside the bounds.

    Returns:
        The largest difference, relative to max(1, |output|).

    Raises:
        ParityError: it is larger than 1e-3, or not a number, or half of the differences are larger than 1e-5.
    """
    expected = trained(x)
    difference = np.abs(run_onnx(path, x) - expected) / np.maximum(1, np.abs(expected))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    typical = float(np.median(difference))
    if not (difference[worst] <= LARGEST_DIFFERENCE and typical <= TYPICAL_DIFFERENCE):
        raise ParityError(
            f"{path} differs from the trained network by {difference[worst]:.2g} (allowed: {LARGEST_DIFFERENCE:g}) "
            f"for the inputs {x[worst].tolist()}, and typically by {typical:.2g} (allowed: {TYPICAL_DIFFERENCE:g})"
        )
    return float(difference[worst])
