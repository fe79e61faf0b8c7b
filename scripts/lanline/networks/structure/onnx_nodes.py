"""The nodes of a structure in an ONNX file, in front of the layers.

HSSM's JAX runtime reads all of them, for inputs of rank 1 too. Its PyTensor backend knows neither products nor
quotients of two values, and is not served.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lanline.networks.structure.graph import BINARY, UNARY, Node
from lanline.networks.structure.structure import Structure


def structure_nodes(structure: Structure) -> tuple[list[NodeProto], list[TensorProto], str, str | None]:
    """Nodes and constants over ``input``, and the names of the joined features and of the leading term."""
    graph = structure.graph
    nodes = [_node(i, node) for i, node in enumerate(graph.nodes) if node.op != "constant"]
    constants = [_constant(_name(i), node.numbers) for i, node in enumerate(graph.nodes) if node.op == "constant"]
    constants.append(_constant("structure.zero", np.zeros(1)))
    for i, node in enumerate(graph.nodes):
        if node.op in ("input", "mix"):
            constants.append(_constant(_name(i) + ".matrix", np.reshape(node.numbers, (node.width, -1))))
    nodes.append(helper.make_node("Concat", [_name(i) for i in structure.feature_nodes], ["features"], axis=-1))
    leading = [_name(i) for i in structure.leading]
    if len(leading) > 1:
        nodes.append(helper.make_node("Concat", leading, ["leading"], axis=-1))
        leading = ["leading"]
    return nodes, constants, "features", leading[0] if leading else None


def _name(i: int) -> str:
    return f"structure.{i}"


def _node(i: int, node: Node) -> NodeProto:
    arguments = [_name(a) for a in node.arguments]
    if node.op in UNARY | BINARY:
        return helper.make_node(node.op.capitalize(), arguments, [_name(i)])
    value = "input" if node.op == "input" else arguments[0]
    return helper.make_node("Gemm", [value, f"{_name(i)}.matrix", "structure.zero"], [_name(i)], transB=1)


def _constant(name: str, array: np.ndarray | tuple[float, ...]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array, np.float32), name)
