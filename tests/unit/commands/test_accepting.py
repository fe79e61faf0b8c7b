"""A network that was trained on data with accepted problems says so, wherever it goes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from typer.testing import CliRunner

from lanline.commands.train import torchtrain
from lanline.config import parse_config
from lanline.dataset.generate import generate_shard
from lanline.dataset.inventory import build_inventory
from lanline.errors import UserError
from lanline.files import write_json
from lanline.paths import Paths
from lanline.sidecars import DatasetSidecar
from lanline.stages.validate_training_data import ValidationRequest, validate_training_data

OWN = """
data: {shards: 2, thetas_per_shard: 20, rows_per_theta: 10}
networks: [{name: lan, hidden_layers: [4], activations: [tanh]}]
training: {epochs: 1, batch_size: 10}
"""


def configured(accept: bool = False):
    data = {"shards": 2, "thetas_per_shard": 20, "rows_per_theta": 10, "accept_problems": accept}
    return parse_config({"name": "x", "models": ["ddm"], "data": data})


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """Two shards with permuted labels in the second one, and their inventory."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)
    paths = [Path("data").absolute() / f"shard-{number:05d}.safetensors" for number in range(2)]
    records = [generate_shard(configured(), "ddm", number, path) for number, path in enumerate(paths)]
    with safe_open(paths[1], "numpy") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    np.random.default_rng(0).shuffle(arrays["lan_labels"])
    save_file(arrays, paths[1], metadata)
    from lanline.files import sha256_file

    changed = {"sha256": sha256_file(paths[1]), "bytes": paths[1].stat().st_size}
    return build_inventory([records[0], records[1].model_copy(update=changed)])


def train(*options: str):
    arguments = [
        "--config-path",
        "own.yaml",
        "--training-data-folder",
        "data",
        "--networks-path-base",
        "nets",
        *options,
    ]
    return CliRunner().invoke(torchtrain, arguments)


def test_the_command_refuses_accepts_and_marks(wrong):
    refused = train()
    assert refused.exit_code == 1
    assert "shard-00001.safetensors: labels: lan_labels differ from the engine's own" in refused.output
    assert not Path("nets").exists()
    assert train("--accept-data-problems").exit_code == 0
    [sidecar] = Path("nets").rglob("run.json")
    assert any("shard-00001" in line for line in json.loads(sidecar.read_text())["accepted_problems"])
    [model] = Path("nets").rglob("model.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert any("shard-00001.safetensors: labels" in value for value in metadata.values())


def test_so_does_the_configuration(wrong):
    Path("own.yaml").write_text(OWN.replace("shards: 2", "shards: 2, accept_problems: true"))
    assert train().exit_code == 0
    assert json.loads(next(Path("nets").rglob("run.json")).read_text())["accepted_problems"]


def test_the_workflows_validation_refuses_or_accepts(wrong):
    paths = Paths("x")
    write_json(paths.inventory("ddm"), wrong.to_json())
    values = dict.fromkeys(DatasetSidecar.model_fields) | {"schema_version": 1, "model": "ddm", "folder": "data"}
    values |= {"files": 2, "rows": 400, "experiment_name": "", "accepted_problems": ()}
    values |= {"dataset_id": wrong.dataset_id, "lineage_id": wrong.lineage_id}
    DatasetSidecar(**values).write(paths.dataset("ddm"))
    with pytest.raises(UserError, match=r"set data\.accept_problems: true"):
        validate_training_data(ValidationRequest(configured(), "ddm", paths, 1))
    assert not paths.validation("ddm").exists()
    report = validate_training_data(ValidationRequest(configured(accept=True), "ddm", paths, 1))
    assert not report.to_json()["passed"]
    assert not json.loads(paths.validation("ddm").read_text())["passed"]
