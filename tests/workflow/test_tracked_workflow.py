"""The workflow with MLflow: what is recorded, and that the record is what data are compared with."""

import json
from pathlib import Path

import pytest

from lanline.files import sha256_file, write_json
from lanline.sidecars import DatasetSidecar, ExperimentsSidecar, TrainingSidecar

pytestmark = pytest.mark.workflow

TRACKED = "mlflow_tracking: true"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A finished run of config/quick.yaml in PyTorch with tracking, and a client of its store."""
    from mlflow import MlflowClient

    from conftest import Workspace

    workspace = Workspace(tmp_path_factory.mktemp("tracked"))
    workspace.overlay("tracked.yaml", TRACKED + "\ntraining: {frameworks: [torch]}")
    workspace.quick(overlays=("tracked.yaml",))
    return workspace, MlflowClient(f"sqlite:///{workspace.folder}/mlflow.db")


def test_the_data_set_has_a_run_with_its_inventory(tracked):
    workspace, client = tracked
    dataset = DatasetSidecar.read(workspace / "results/quick/ddm/dataset.json")
    run = client.get_run(dataset.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "ddm-data-generation"
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset_id"] == dataset.dataset_id
    assert run.data.params["seed"] == "42"
    assert run.inputs.dataset_inputs[0].dataset.digest == dataset.dataset_id
    path = client.download_artifacts(dataset.run_id, "generated_files_inventory.json", str(workspace.folder))
    inventory = json.loads(Path(path).read_text())
    folder = workspace / "results/quick/ddm/data"
    assert {file["file"]: file["sha256"] for file in inventory["files"]} == {
        file.name: sha256_file(file) for file in folder.glob("*.safetensors")
    }


def test_the_training_has_a_run_that_leads_back_to_its_data(tracked):
    workspace, client = tracked
    dataset = DatasetSidecar.read(workspace / "results/quick/ddm/dataset.json")
    sidecar = TrainingSidecar.read(workspace / "results/quick/networks/ddm-lan-torch-s1/run.json")
    run = client.get_run(sidecar.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "ddm-training"
    assert run.data.tags["data_generation_experiment_id"] == dataset.experiment_id
    assert run.data.tags["data_generation_run_id"] == dataset.run_id
    assert run.data.tags["mlflow.parentRunId"] == dataset.run_id
    assert run.data.tags["dataset_id"] == dataset.dataset_id
    assert run.inputs.dataset_inputs[0].dataset.digest == dataset.dataset_id
    assert [metric.step for metric in client.get_metric_history(sidecar.run_id, "validation_loss")][:2] == [1, 2]
    report = json.loads((workspace / "reports/quick/ddm-lan-torch-s1/evaluation/metrics.json").read_text())
    assert run.data.metrics["evaluation.mae"] == pytest.approx(report["mae"])
    names = {artifact.path for artifact in client.list_artifacts(sidecar.run_id, "network")}
    assert "network/model.onnx" in names
    figures = {artifact.path for artifact in client.list_artifacts(sidecar.run_id, "evaluation/figures")}
    assert "evaluation/figures/agreement.png" in figures


def test_ids_travel_in_sidecars(tracked):
    workspace, client = tracked
    experiments = ExperimentsSidecar.read(workspace / "results/quick/ddm/experiments.json")
    assert client.get_experiment(experiments.training.experiment_id).name == "ddm-training"
    assert client.get_experiment(experiments.data_generation.experiment_id).name == "ddm-data-generation"


def test_nothing_is_to_be_done_again(tracked):
    workspace, _ = tracked
    assert "Nothing to be done" in workspace.quick(overlays=("tracked.yaml",))
    assert not (workspace / "mlruns").exists()


def test_data_are_compared_with_mlflow_and_not_with_the_file_beside_them(tracked):
    """Someone changes a shard and makes the local inventory agree with it."""
    workspace, _ = tracked
    shard = workspace / "results/quick/ddm/data/shard-00002.safetensors"
    original = shard.read_bytes()
    inventory_path = workspace / "results/quick/ddm/generated_files_inventory.json"
    inventory = json.loads(inventory_path.read_text())
    content = bytearray(original)
    content[-3] ^= 1
    shard.write_bytes(content)
    inventory["files"][2]["sha256"] = sha256_file(shard)
    write_json(inventory_path, inventory)
    output = workspace.quick("validations", "--rerun-triggers", "mtime", overlays=("tracked.yaml",), fails=True)
    assert "shard-00002.safetensors: changed" in output
    assert "MLflow" in output or "tracked as" in output


def test_without_its_store_a_workflow_that_insists_on_it_computes_nothing(workspace):
    overlay = workspace.overlay("strict.yaml", TRACKED + "\ntracking: {on_outage: fail}")
    workspace.quick("experiments", overlays=(overlay,))
    dead = {"MLFLOW_TRACKING_URI": "http://ann:s3cretWord@127.0.0.1:9"}
    workspace.quick("-n", "shards", overlays=(overlay,), **dead)
    output = workspace.quick("shards", overlays=(overlay,), fails=True, **dead)
    assert "127.0.0.1:9 is unreachable" in output
    assert "s3cretWord" not in output
    assert not list(workspace.folder.rglob("*.safetensors"))
    assert "Traceback" not in output
