"""A head that died, folders side by side, and nodes without a route to the tracking server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, clean_environment
from lanline.cluster.slurm import run_slurm
from lanline.sidecars import TrainingSidecar
from mlflow_server import MlflowServer
from slurm_cluster import (
    SLURM_CONF,
    SOON,
    Cluster,
    ClusterWorkspace,
    Head,
    freeze_training,
    job,
    new_folder,
    stop_left_behind,
    wait_until,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
TWO = """
networks:
  - {name: lan, hidden_layers: [8], activations: [tanh]}
  - {name: slow, hidden_layers: [200, 200, 200], activations: [tanh, tanh, tanh]}
training: {frameworks: [torch], epochs: 100}
"""
CHECKPOINT = "results/quick/checkpoints/ddm-slow-torch-s1.safetensors"


def onnx(network: str) -> str:
    return f"results/quick/networks/ddm-{network}-torch-s1/model.onnx"


def start(workspace: ClusterWorkspace, *targets: str) -> Head:
    workspace.overlay("two.yaml", TWO)
    return workspace.head(*(targets or ("torch_networks",)), overlays=("tracked.yaml", "two.yaml"))


def job_of(head: Head, wildcards: str) -> str:
    """The id of a training's job."""
    return re.findall(rf"submitted with SLURM jobid (\d+) \(log: \S*/rule_train_torch/{wildcards}/", head.output)[-1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run make in a workspace, with the environment that these tests run in."""
    installed = folder / "installed"
    (installed / "bin").mkdir(parents=True)
    for name in ("bin/python", ".installed", ".installed-slurm"):  # in this order: make is to install nothing
        (installed / name).touch()
    where = (f"VENV={installed}", f"BIN={Path(sys.executable).parent}")
    command = ["make", "--file", str(folder / "Makefile"), *where, *arguments]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True)


def test_a_head_is_killed_and_recovered_beside_another_folder(cluster, validated, tmp_path):
    from mlflow import MlflowClient

    killed, other = (validated.copy(tmp_path / name) for name in ("killed", "other"))
    for name in ("Makefile", "pyproject.toml"):
        (killed / name).write_text((ROOT / name).read_text())
    head = start(killed)
    wait_until((killed / CHECKPOINT).exists, "a checkpoint")
    freeze_training(job_of(head, "ddm_slow_1"))  # it is to outlive all that follows
    head.process.kill()
    head.process.wait()
    beside = start(other, onnx("slow"))
    # What finishes while there is no head is kept.
    wait_until((killed / onnx("lan")).with_name("run.json").exists, "the small network")
    slow = beside.running("train_torch")

    again = start(killed)
    assert "--unlock" in again.finish(fails=True)
    killed.snakemake("--unlock", "--configfile", "config/quick.yaml", "tracked.yaml", "two.yaml")
    again = start(killed)
    assert "make slurm-recover" in again.finish(fails=True)
    assert again.jobs("train_torch") == []
    finished = (killed / onnx("lan")).stat().st_mtime_ns

    options = f"--until train_torch {' '.join(SOON)}"
    recovered = make(killed.folder, "slurm-recover", f"CONFIG=config/quick.yaml tracked.yaml two.yaml {options}")
    output = recovered.stdout + recovered.stderr
    assert recovered.returncode == 0, output
    assert "cancelling 1 job(s)" in output
    assert output.count("has been submitted with SLURM jobid") == 1, output
    assert (killed / onnx("lan")).stat().st_mtime_ns == finished
    assert job(slow)["JobState"] in ("RUNNING", "COMPLETED")
    beside.finish()
    assert beside.jobs("train_torch") == [slow]

    client = MlflowClient(f"sqlite:///{validated.store}")
    runs = {}
    for workspace in (killed, other):
        sidecar = TrainingSidecar.read(workspace / onnx("slow").replace("model.onnx", "run.json"))
        runs[workspace] = client.get_run(sidecar.run_id)
        assert runs[workspace].info.status == "FINISHED"
    assert runs[killed].info.run_id != runs[other].info.run_id
    assert "resumed" in runs[killed].data.tags
    assert "resumed" not in runs[other].data.tags


def test_a_living_head_keeps_its_folder(cluster, tmp_path):
    workspace = ClusterWorkspace(tmp_path)
    head = workspace.head("shards")
    head.running("generate_shards")
    command = [Path(sys.executable).with_name("lanline"), "slurm-cancel"]
    refused = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    assert refused.returncode != 0
    assert f"process {head.process.pid} on" in refused.stderr
    head.finish()


def test_jobs_without_a_route_to_the_server_leave_it_to_the_head(cluster, tmp_path):
    with MlflowServer(tmp_path) as server:
        server.start()
        (tmp_path / "run").mkdir()
        check_that_the_head_brings_it_over(cluster, server, ClusterWorkspace(tmp_path / "run"))


def check_that_the_head_brings_it_over(cluster, server: MlflowServer, workspace: ClusterWorkspace) -> None:
    from mlflow import MlflowClient

    settings = f"mlflow_tracking: true\ntracking: {{uri: '{server.uri}'}}\ntraining: {{frameworks: [torch]}}"
    workspace.overlay("served.yaml", settings)
    workspace.quick("validations", overlays=("served.yaml",))
    (cluster.folder / "no-route").touch()
    try:
        head = workspace.head("torch_networks", overlays=("served.yaml",))
        output = head.finish()
    finally:
        (cluster.folder / "no-route").unlink()
    log = (workspace / "logs/quick/train_torch/ddm-lan-s1.log").read_text()
    assert "is unreachable" in log
    sidecar = TrainingSidecar.read(workspace / "results/quick/networks/ddm-lan-torch-s1/run.json")
    assert sidecar.run_id is None
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("ddm-training")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_id in output
    assert run.data.tags["lanline.key"] == sidecar.tracking_key
    assert run.data.tags["slurm_job_id"] == head.jobs("train_torch")[0]
    assert len(client.get_metric_history(run.info.run_id, "validation_loss")) >= 2
    assert run_slurm("squeue", "--noheader") == ""


def test_a_cluster_that_a_killed_run_of_the_tests_left_is_stopped_first(cluster):
    stop_left_behind()
    assert not SLURM_CONF.is_symlink()
    assert not cluster.folder.exists()
    later = Cluster(new_folder())
    try:
        later.start()
        assert SLURM_CONF.resolve().is_relative_to(later.folder)
    finally:
        later.stop()
