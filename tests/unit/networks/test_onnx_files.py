"""ONNX files of anybody: errors name the file, nothing else is read, and nothing steers the terminal."""

import numpy as np
import onnx
import pytest

from lanline.errors import UserError
from lanline.evaluation.exported import open_network
from lanline.networks.onnx_files import load_onnx, read_metadata, run_onnx

OPENERS = [load_onnx, read_metadata, lambda path: run_onnx(path, np.zeros((1, 2)))]


def model(weight=None, constant=None, **metadata):
    """x (1, 2) times a weight, plus a constant."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.ones((2, 1), np.float32), "w") if weight is None else weight
    constant = onnx.numpy_helper.from_array(np.ones(1, np.float32), "c") if constant is None else constant
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Constant", [], ["one"], value=constant),
        helper.make_node("Add", ["product", "one"], ["y"]),
    ]
    inputs, outputs = ([helper.make_tensor_value_info(n, floats, [1, k])] for n, k in (("x", 2), ("y", 1)))
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, metadata)
    return made


def outside(name, shape, location):
    """A tensor whose values lie in another file."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_a_model_runs_and_its_metadata_are_read(tmp_path):
    path = tmp_path / "n.onnx"
    onnx.save(model(model="ddm"), path)
    assert run_onnx(path, np.array([[1.0, 2.0]])) == 4
    assert read_metadata(path) == {"model": "ddm"}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is not an ONNX file"),
        (b"not a network", "is not an ONNX file"),
        (b"\xff" * 100, "is not an ONNX file"),
    ],
)
def test_what_is_no_onnx_file_is_named(tmp_path, opener, content, message):
    path = tmp_path / "n.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"n\.onnx.*{message}"):
        opener(path)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_truncated_file_is_named(tmp_path, opener):
    path = tmp_path / "n.onnx"
    path.write_bytes(model().SerializeToString()[:-9])
    with pytest.raises(UserError, match=r"n\.onnx"):
        opener(path)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_folder_is_named(tmp_path, opener):
    with pytest.raises(UserError, match="Is a directory"):
        opener(tmp_path)


@pytest.mark.parametrize("place", ["weight", "constant"])
def test_weights_in_other_files_are_never_read(tmp_path, monkeypatch, place):
    """Someone else's network could name any file of this machine."""
    np.ones(2, np.float32).tofile(tmp_path / "secret")
    monkeypatch.chdir(tmp_path)
    tensors = {"weight": outside("w", (2, 1), "secret"), "constant": outside("c", (1,), "secret")}
    path = tmp_path / "n.onnx"
    path.write_bytes(model(**{place: tensors[place]}, dataset_id="d").SerializeToString())
    assert read_metadata(path) == {"dataset_id": "d"}
    for opener in (lambda: run_onnx(path, np.zeros((1, 2))), lambda: open_network(path, np.zeros((1, 2)))):
        with pytest.raises(UserError, match=r"n\.onnx has weights in other files"):
            opener()


def test_a_graph_that_cannot_run_is_named(tmp_path):
    broken = model()
    broken.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "n.onnx"
    onnx.save(broken, path)
    with pytest.raises(UserError, match=r"n\.onnx cannot be run: .*NoSuchOperator"):
        run_onnx(path, np.zeros((1, 2)))


def test_metadata_cannot_steer_a_terminal(tmp_path):
    path = tmp_path / "n.onnx"
    onnx.save(model(dataset_id="\x1b[2Jgone\r\n\u202etxt", author="Žofia 量"), path)
    assert read_metadata(path) == {"dataset_id": "\\x1b[2Jgone\\r\\n\\u202etxt", "author": "Žofia 量"}
