"""Opening ONNX files, one's own and other people's: nothing outside of the file is read, and errors name the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from lanline.errors import UserError


def load_onnx(path: Path) -> onnx.ModelProto:
    """The content of an ONNX file; tensors that lie in other files are left where they are.

    Raises:
        UserError: the file cannot be read, or is no ONNX file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{path} is not an ONNX file: {error}") from None
    if not model.HasField("graph"):  # as in an empty file
        raise UserError(f"{path} is not an ONNX file: it has no graph")
    return model


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, safe to print: what steers a terminal is escaped. Raises as `load_onnx`."""
    return {_printable(entry.key): _printable(entry.value) for entry in load_onnx(path).metadata_props}


def start_session(model: onnx.ModelProto, path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session that runs a model on the CPU.

    Args:
        model: from `load_onnx`.
        path: of the file, for messages.
        threads: of the matrix products; None leaves it to ONNX Runtime.

    Raises:
        UserError: parts of the network lie in other files, or ONNX Runtime cannot run it.
    """
    if any(uses_external_data(tensor) for tensor in _tensors(model)):
        raise UserError(f"{path} has weights in other files, which are not read: expected one file with all of them")
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types have no base class but this one
        raise UserError(f"{path} cannot be run: {error}") from None


def run_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    """Outputs (n,) of the file for raw inputs ``x`` (n, D), one trial at a time as its consumers call it.

    Raises:
        UserError: as `load_onnx` and `start_session`.
    """
    session = start_session(load_onnx(path), path)
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: row[None, :]})[0].squeeze() for row in x.astype(np.float32)])


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model: weights, and constants of its nodes, of subgraphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            graphs += [attribute.g, *attribute.graphs]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
