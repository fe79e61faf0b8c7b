"""The network as HSSM takes it: a single-trial graph of Gemm nodes, checked against its own trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lanline.files import atomic_path
from lanline.networks.onnx_files import run_onnx
from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name

OPSET = 17
IR_VERSION = 8  # the one that goes with opset 17: older runtimes refuse a newer one
TYPICAL_DIFFERENCE, LARGEST_DIFFERENCE = 1e-5, 1e-3
IMPOSSIBLE = 1e6  # minus the log-probability of a choice that the model does not have

OUTPUTS = {
    "lan": "log p(rt, choice | params)",
    "cpn": "log P(choice | params, a response)",
    "opn": "log P(no response before the deadline | params)",
    "gonogo": "log P(no go response | params)",
}

_OPERATORS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "elu": "Elu"}


class ParityError(RuntimeError):
    """The exported network does not compute what the trained one does."""


def write_onnx(path: Path, spec: NetworkSpec, weights: Weights, metadata: dict[str, str]) -> None:
    """Write the network with raw inputs, shape (1, D), and one output, shape (1, 1).

    The output is `lanline.networks.heads.exported_values`. All nodes work on rank 1 too, as HSSM calls them, and
    its runtime gives finite values for them: it computes LogSoftmax as the logarithm of a softmax, which is -inf from
    about -88 on, so that node is not used.

    Args:
        path: file to write.
        spec: the network; its inputs are the columns ``spec.exported_inputs``.
        weights: for raw inputs (`Standardisation.fold`).
        metadata: written into the file's metadata beside model, params and network type.
    """
    properties = {
        "model": spec.model,
        "params": ",".join(spec.params),
        "inputs": ",".join(spec.exported_inputs),
        "network_type": spec.network_type,
        "choices": ",".join(map(str, spec.choices)),
        "output": OUTPUTS[spec.network_type],
        **metadata,
    }
    with atomic_path(path) as temporary:
        onnx.save_model(_graph(spec, weights, properties), temporary)


def _graph(spec: NetworkSpec, weights: Weights, properties: dict[str, str]) -> onnx.ModelProto:
    nodes, constants, value = [], [], "input"
    for layer in range(len(spec.layers)):
        names = [weight_name(layer), bias_name(layer)]
        last = layer == len(spec.layers) - 1
        weight, bias = (weights[name] for name in names)
        if layer == 0 and len(spec.exported_inputs) > len(spec.inputs):
            weight = np.pad(weight, ((0, 0), (0, 1)))  # the choice comes in later
        if last and spec.gives_probabilities and len(weight) == 1:
            weight, bias = np.pad(weight, ((1, 0), (0, 0))), np.pad(bias, (1, 0))  # logits (0, u)
        constants += [numpy_helper.from_array(array, name) for array, name in zip((weight, bias), names, strict=True)]
        out = f"layer_{layer}.sum"
        if last:
            out = "logits" if spec.gives_probabilities else "output"
        nodes.append(helper.make_node("Gemm", [value, *names], [out], transB=1))
        value = out
        if not last:
            value = f"layer_{layer}.out"
            activation_nodes, activation_constants = _activation(spec.activations[layer], out, value)
            nodes += activation_nodes
            constants += activation_constants
    if spec.gives_probabilities:
        head_nodes, head_constants = _head(spec)
        nodes += head_nodes
        constants += head_constants
    graph = helper.make_graph(
        nodes,
        f"{spec.model}_{spec.network_type}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, len(spec.exported_inputs)])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="lanline", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


def _head(spec: NetworkSpec) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """From logits of K categories to the log-probability of one: the choice that is asked for, or the second."""
    n = max(spec.layers[-1], 2)
    arrays = {"ones": np.ones((1, n)), "zero": np.zeros(1)}
    nodes = [
        helper.make_node("ReduceMax", ["logits"], ["largest"], axes=[-1], keepdims=1),
        helper.make_node("Sub", ["logits", "largest"], ["below"]),
        helper.make_node("Exp", ["below"], ["relative"]),
        helper.make_node("Gemm", ["relative", "ones", "zero"], ["total"], transB=1),
        helper.make_node("Log", ["total"], ["log_total"]),
        helper.make_node("Sub", ["below", "log_total"], ["log_probabilities"]),
    ]
    if spec.network_type != "cpn":
        arrays["second"] = np.array([[0.0, 1.0]])
        nodes += [helper.make_node("Gemm", ["log_probabilities", "second", "zero"], ["output"], transB=1)]
    else:
        # 1 where the choice that is asked for is the category's own, 0 elsewhere: choices are whole numbers.
        arrays |= {
            "choice_column": np.repeat([[0.0] * len(spec.inputs) + [1.0]], n, axis=0),
            "minus_choices": -np.array(spec.choices),
            "one": np.ones(1),
            "much": np.full((1, n), IMPOSSIBLE),
            "minus_much": np.full(1, -IMPOSSIBLE),
        }
        nodes += [
            helper.make_node("Gemm", ["input", "choice_column", "minus_choices"], ["difference"], transB=1),
            helper.make_node("Abs", ["difference"], ["distance"]),
            helper.make_node("Sub", ["one", "distance"], ["nearness"]),
            helper.make_node("Relu", ["nearness"], ["is_asked_for"]),
            helper.make_node("Mul", ["log_probabilities", "is_asked_for"], ["asked_for"]),
            helper.make_node("Gemm", ["asked_for", "ones", "zero"], ["log_probability"], transB=1),
            # 0 if one of the choices is asked for.
            helper.make_node("Gemm", ["is_asked_for", "much", "minus_much"], ["of_no_choice"], transB=1),
            helper.make_node("Add", ["log_probability", "of_no_choice"], ["output"]),
        ]
    return nodes, [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]


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
