"""Where a network came from, asked of a finished run: from disk, from MLflow alone, from an ONNX file alone."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from conftest import Workspace
from lanline.commands.main import main
from lanline.errors import UserError
from lanline.files import sha256_file, write_json
from lanline.lineage.trace import trace
from lanline.sidecars import DatasetSidecar, TrainingSidecar
from lanline.tracking.mlflow.store import connect, resolve_store

pytestmark = pytest.mark.workflow

NETWORK = "results/quick/networks/ddm-lan-torch-s1"
SETTINGS = (
    "mlflow_tracking: {}\ntraining: {{frameworks: [torch]}}\nevaluation: {{gate: {{max_mae: 100, mass: [0, 99]}}}}"
)


def finished_run(folder: Path, tracking: str) -> Workspace:
    workspace = Workspace(folder)
    workspace.quick(overlays=(workspace.overlay("settings.yaml", SETTINGS.format(tracking)),))
    return workspace


@pytest.fixture(scope="module")
def tracked_run(tmp_path_factory) -> Path:
    """A finished, tracked run whose network passed its evaluation; not to be changed."""
    return finished_run(tmp_path_factory.mktemp("tracked"), "true").folder


@pytest.fixture
def run(tracked_run, tmp_path, monkeypatch) -> Path:
    """A copy of it to change; the working directory. Its store is the original one."""
    for part in ("results", "reports"):
        shutil.copytree(tracked_run / part, tmp_path / "run" / part)
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked_run}/mlflow.db")
    return tmp_path / "run"


@pytest.fixture
def no_store(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")


def assert_whole(lineage, folder: Path) -> None:
    """The tree leads from the network to each shard, its seed and hash, and the machine."""
    nodes = {}
    for node in lineage.tree.walk():
        nodes.setdefault(node.kind, []).append(node)
    data = folder / "results/quick/ddm/data"
    assert {shard.name: shard.files[0].sha256 for shard in nodes["shard"]} == {
        path.name: sha256_file(path) for path in data.glob("*.safetensors")
    }
    assert {shard.facts["seed"] for shard in nodes["shard"]} == {42}
    assert {shard.facts["engine"] for shard in nodes["shard"]} == {"closed_form"}
    assert {shard.facts["host"] for shard in nodes["shard"]} == {socket.gethostname()}
    assert sorted(shard.facts["used_for"] for shard in nodes["shard"]) == ["training", "training", "validation"]
    dataset = DatasetSidecar.read(folder / "results/quick/ddm/dataset.json")
    assert nodes["data set"][0].facts["dataset_id"] == dataset.dataset_id
    assert nodes["validation"][0].name == "passed"
    assert nodes["evaluation"][0].name == "passed"
    assert nodes["evaluation"][0].facts["mae"] > 0
    assert len(nodes["training run"]) == len(nodes["data generation run"]) == 1
    for origin in nodes["made by"]:
        assert {"host", "user", "python", "numpy", "lanline", "git_commit"} <= set(origin.facts)
    assert nodes["configuration"][0].facts["training.epochs"] == "2"
    assert nodes["configuration"][0].files[0].sha256 == sha256_file(
        folder / "reports/quick/ddm-lan-torch-s1/training/config.yaml"
    )


def test_of_a_folder_from_disk_without_mlflow(run, no_store):
    with trace(NETWORK) as lineage:
        assert_whole(lineage, run)
        assert lineage.verify() == []
        assert lineage.notes == ()


def test_of_a_folder_in_another_working_directory(run, no_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with trace(run / NETWORK) as lineage:
        assert_whole(lineage, run)


def test_of_a_run_without_tracking(tmp_path, monkeypatch):
    folder = finished_run(tmp_path, "false").folder
    monkeypatch.chdir(folder)
    with trace(f"{NETWORK}/model.onnx") as lineage:
        assert_whole(lineage, folder)
        assert lineage.verify() == []


def test_of_an_onnx_file_alone_from_disk(run, no_store, tmp_path):
    alone = shutil.copy(f"{NETWORK}/model.onnx", tmp_path / "mailed.onnx")
    with trace(alone) as lineage:
        assert_whole(lineage, run)
        assert str(alone) in [file.shown for file in lineage.tree.files]


def test_of_an_onnx_file_alone_from_mlflow(run, tracked_run, tmp_path, monkeypatch):
    """On another machine: only the file and the store."""
    alone = shutil.copy(f"{NETWORK}/model.onnx", tmp_path / "mailed.onnx")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.rmtree(run)
    with trace(alone) as lineage:
        assert_whole(lineage, tracked_run)
        assert lineage.verify() == []
        assert {node.facts["recorded_in"] for node in lineage.tree.walk() if "recorded_in" in node.facts} == {
            f"MLflow sqlite:///{tracked_run}/mlflow.db"
        }
    content = bytearray(alone.read_bytes())
    content[len(content) // 2] ^= 1
    alone.write_bytes(content)
    with trace(alone) as lineage:
        [problem] = lineage.verify()
        assert problem.startswith(f"{alone} (network): changed")


def test_of_an_onnx_file_of_which_nothing_is_recorded_here(run, no_store, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    alone = shutil.copy(run / NETWORK / "model.onnx", "mailed.onnx")
    with trace(alone) as lineage:
        dataset = DatasetSidecar.read(run / "results/quick/ddm/dataset.json")
        assert lineage.tree.name == "ddm-lan-torch-s1"
        assert lineage.tree.parts[0].facts["dataset_id"] == dataset.dataset_id
        assert "none.db" in lineage.notes[0]
        assert "no record found" in lineage.notes[1]
        assert lineage.verify() == ["mailed.onnx: no record to compare it with"]
    assert not (tmp_path / "none.db").exists()  # a question makes no store


def test_of_run_ids(run, tracked_run, monkeypatch, tmp_path):
    sidecar = TrainingSidecar.read(run / NETWORK / "run.json")
    with trace(sidecar.run_id) as lineage:
        assert_whole(lineage, run)
    with trace(sidecar.data_generation_run_id) as lineage:
        assert lineage.tree.kind == "data set"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with trace(sidecar.run_id) as lineage:
        assert_whole(lineage, tracked_run)
    with pytest.raises(UserError, match="no record found"), trace("0" * 32):
        pass


def test_verify_names_what_changed(run, tracked_run, no_store, monkeypatch, capsys):
    def problems() -> list[str]:
        with pytest.raises(SystemExit) as exit_code:
            main(["lineage", NETWORK, "--verify", "--json"])
        assert exit_code.value.code == 1
        return json.loads(capsys.readouterr().out)["problems"]

    data = run / "results/quick/ddm/data"
    (data / "shard-00001.safetensors").write_bytes(b"other")
    (data / "shard-00002.safetensors").unlink()
    (run / NETWORK / "weights.safetensors").write_bytes(b"other")
    found = problems()
    assert len(found) == 3
    for part in ("shard-00001.safetensors (shard): changed", "shard-00002.safetensors (shard): missing"):
        assert any(part in problem for problem in found)
    assert any("weights.safetensors (network): changed" in problem for problem in found)

    inventory = run / "results/quick/ddm/generated_files_inventory.json"
    content = json.loads(inventory.read_text())
    content["files"][0]["seed"] = 43
    write_json(inventory, content)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked_run}/mlflow.db")
    *as_before, changed = sorted(problems(), key=lambda problem: "inventory.json" in problem)
    assert "generated_files_inventory.json (data set): changed" in changed
    assert sorted(as_before) == sorted(found)  # the shards are those of MLflow's copy, in the configured store


def test_what_is_printed(run, no_store, capsys):
    main(["lineage", NETWORK, "--verify"], standalone_mode=False)
    printed = capsys.readouterr().out
    for part in ("network ddm-lan-torch-s1", "├─ training run", "└─ shard shard-00002", "seed 42", "mae "):
        assert part in printed
    assert "\x1b" not in printed
    assert printed.endswith("files match the record\n")


def test_mistakes(run, tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    for target, message in (
        ("nothing", "no such folder or file, and not an MLflow run id"),
        (tmp_path / "text.onnx", "is not an ONNX file"),
        (tmp_path, "is not the folder of a network"),
    ):
        with pytest.raises(UserError, match=message), trace(target):
            pass


def test_a_network_that_passed_is_a_candidate_and_its_run_tells_its_lineage(run, tracked_run):
    client = connect(resolve_store())
    sidecar = TrainingSidecar.read(run / NETWORK / "run.json")
    version = client.get_model_version_by_alias("ddm-lan", "candidate")
    assert version.run_id == sidecar.run_id
    assert version.tags["dataset_id"] == sidecar.dataset_id
    assert version.tags["framework"] == "torch"
    assert float(version.tags["mae"]) > 0
    description = client.get_run(sidecar.run_id).data.tags["mlflow.note.content"]
    for part in (sidecar.data_generation_run_id, sidecar.dataset_id, f"lanline lineage {NETWORK}"):
        assert part in description
