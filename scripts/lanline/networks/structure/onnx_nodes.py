"""The nodes of a structure in an ONNX file, in front of the layers.

HSSM's JAX backend reads all of them, for inputs of rank 1 too. Its pytensor interpreter knows neither products nor
quotients of two values (`lanline.networks.onnx_nodes`), and is not served.
"""

from __future__ import annotations

import numpy as np

from lanline.networks.onnx_nodes import Nodes
from lanline.networks.structure.graph import BINARY, UNARY
from lanline.networks.structure.structure import Structure


def structure_nodes(nodes: Nodes, structure: Structure) -> tuple[str, str | None]:
    """Add the nodes of a structure over ``input``; the names of the joined features and of the leading term."""
    names: list[str] = []
    for i, node in enumerate(structure.graph.nodes):
        name, arguments = f"structure.{i}", [names[a] for a in node.arguments]
        if node.op == "constant":
            nodes.constant(np.array(node.numbers), name)
        elif node.op in UNARY | BINARY:
            nodes.add(node.op.capitalize(), *arguments, out=name)
        else:
            matrix = nodes.constant(np.reshape(node.numbers, (node.width, -1)), f"{name}.matrix")
            zero = nodes.constant(np.zeros(1), f"{name}.zero")
            nodes.add("Gemm", *(arguments or ["input"]), matrix, zero, out=name, transB=1)
        names.append(name)
    features = nodes.add("Concat", *(names[i] for i in structure.feature_nodes), out="features", axis=-1)
    leading = [names[i] for i in structure.leading]
    if len(leading) > 1:
        leading = [nodes.add("Concat", *leading, out="leading", axis=-1)]
    return features, leading[0] if leading else None
