"""Activations and probability heads as ONNX nodes that both of HSSM's interpreters compute.

The one of its JAX backend (jaxonnxruntime) lacks Elu and computes LogSoftmax as the logarithm of a softmax, which is
-inf from about -88 on. The one of its pytensor backend knows Add, Constant, Exp, Gemm, Log, MatMul, Neg, Reshape and
Tanh; its Relu takes the largest value of all trials. So heads are built from those operators alone, and work on
inputs of rank 1 too, as HSSM's JAX backend calls them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name

IMPOSSIBLE = 1e6  # minus the log-probability of a choice that the model does not have
_STEEP = 20.0  # tanh of it is 1


class Nodes:
    """The nodes and constants of a graph that is being built; methods return the name of their result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, array: np.ndarray, name: str = "") -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def add(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{operator}_{len(self.nodes)}".lower()
        self.nodes.append(helper.make_node(operator, inputs, [out], **attributes))
        return out

    def linear(self, value: str, matrix: np.ndarray, shift: str = "") -> str:
        """``value`` (.., D) times the transpose of ``matrix`` (K, D), plus ``shift``."""
        return self.add("Gemm", value, self.constant(matrix), shift or self.constant(np.zeros(1)), transB=1)


def activation(nodes: Nodes, name: str, value: str, out: str) -> None:
    """Nodes of an activation; ``value`` is z, but z / 2 for softplus (`input_scale`).

    Where there is no operator for it: elu(z) = relu(z) + exp(-relu(-z)) - 1, gelu(z) = z/2 (1 + erf(z / sqrt 2)) and
    softplus(z) = z/2 + log(exp(z/2) + exp(-z/2)).
    """
    if name in ("tanh", "sigmoid"):  # of which tanh is left: see `sigmoid_as_tanh`
        nodes.add("Tanh", value, out=out)
    elif name == "relu":
        nodes.add("Relu", value, out=out)
    elif name == "softplus":
        both = nodes.add("Add", nodes.add("Exp", value), nodes.add("Exp", nodes.add("Neg", value)))
        nodes.add("Add", value, nodes.add("Log", both), out=out)
    elif name == "elu":
        below = nodes.add("Exp", nodes.add("Neg", nodes.add("Relu", nodes.add("Neg", value))))
        less_one = nodes.add("Add", below, nodes.constant(np.array(-1.0)))
        nodes.add("Add", nodes.add("Relu", value), less_one, out=out)
    else:
        erf = nodes.add("Erf", nodes.add("Mul", value, nodes.constant(np.sqrt(0.5))))
        double = nodes.add("Mul", value, nodes.add("Add", erf, nodes.constant(np.array(1.0))))
        nodes.add("Mul", double, nodes.constant(np.array(0.5)), out=out)


def input_scale(name: str) -> float:
    """What z is multiplied by for `activation`."""
    return 0.5 if name == "softplus" else 1.0


def sigmoid_as_tanh(spec: NetworkSpec, weights: Weights) -> Weights:
    """Weights of the same network with tanh for sigmoid(z) = (1 + tanh(z / 2)) / 2, which both interpreters know."""
    weights = dict(weights)
    for layer, name in enumerate(spec.activations):
        if name == "sigmoid":
            half = weights[weight_name(layer + 1)] / 2
            weights |= {
                weight_name(layer): weights[weight_name(layer)] / 2,
                bias_name(layer): weights[bias_name(layer)] / 2,
                weight_name(layer + 1): half,
                bias_name(layer + 1): weights[bias_name(layer + 1)] + half.sum(axis=1),
            }
    return weights


def probability_head(nodes: Nodes, spec: NetworkSpec, logits: str, choice: int | None) -> None:
    """From logits of K categories to ``output``, the log-probability of one of them.

    Args:
        nodes: where they go.
        spec: the network; a cpn is asked for the choice in the last column of ``input``, others for the second one.
        logits: name of the logits (.., K).
        choice: the one that is asked for, of a cpn without that column.
    """
    n = max(spec.layers[-1], 2)
    total = nodes.add("Neg", _log_sum_exp(nodes, logits, n, 1 / n))
    if spec.network_type != "cpn" or choice is not None:
        category = 1 if choice is None else spec.choices.index(choice)
        asked_for = nodes.linear(logits, np.eye(n)[[category]])
        nodes.add("Add", asked_for, total, out="output")
        return
    penalties = _penalties(nodes, spec)
    asked_for = _log_sum_exp(nodes, nodes.add("Add", logits, penalties), n, 1.0)
    impossible = nodes.add("Neg", _impossible(nodes, penalties, n))
    nodes.add("Add", nodes.add("Add", asked_for, total), impossible, out="output")


def _temperature(n: int) -> float:
    """T of `_log_sum_exp`: float32 overflows at exp(88), which is n^(T / 80) in its second step, and logits of 88 T."""
    return 80 / np.log(n)


def _penalty(n: int) -> float:
    """Is taken from the logits of choices that are not asked for: more than logits differ by, less than overflows."""
    return 40 * _temperature(n)


def _log_sum_exp(nodes: Nodes, value: str, n: int, weight: float) -> str:
    """log sum exp over the ``n`` entries of ``value``, (.., 1), without their largest one, which needs a Max.

    m = T log(weight * sum exp(value / T)) is at most T log n away from it, and is subtracted before the sum is taken
    with T = 1. It should be small, for float32's sake: ``weight`` is 1 / n where all entries count, 1 where one does.
    """
    temperature = _temperature(n)
    cool = nodes.add("Exp", nodes.linear(value, np.eye(n) / temperature))
    cool_total = nodes.add("Log", nodes.linear(cool, np.full((1, n), weight)))
    rest = nodes.add("Exp", nodes.linear(cool_total, np.full((n, 1), -temperature), value))
    rest_total = nodes.add("Log", nodes.linear(rest, np.ones((1, n))))
    return nodes.linear(cool_total, np.array([[temperature]]), rest_total)


def _penalties(nodes: Nodes, spec: NetworkSpec) -> str:
    """0 for the choice that is asked for, about -`_penalty` for others: 2 - 2 cosh(L tanh(20 (choice - code)))."""
    n = len(spec.choices)
    column = np.repeat([[0.0] * len(spec.inputs) + [_STEEP]], n, axis=0)
    codes = nodes.constant(-_STEEP * np.array(spec.choices))
    turn = nodes.linear(nodes.add("Tanh", nodes.linear("input", column, codes)), np.log(_penalty(n)) * np.eye(n))
    both = nodes.add("Add", nodes.add("Exp", turn), nodes.add("Exp", nodes.add("Neg", turn)))
    return nodes.add("Add", nodes.add("Neg", both), nodes.constant(np.full(n, 2.0)))


def _impossible(nodes: Nodes, penalties: str, n: int) -> str:
    """0 if one of the choices is asked for, `IMPOSSIBLE` if all of them have their penalty."""
    shift = nodes.constant(np.array([np.log(IMPOSSIBLE) - 60 * n]))  # exp(-46) is 0 beside a log-probability
    return nodes.add("Exp", nodes.linear(penalties, np.full((1, n), -60 / _penalty(n)), shift))
