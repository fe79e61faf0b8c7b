"""The workflow on a cluster gives what it gives at home; a profile for the cluster comes from the cluster itself."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from conftest import ROOT, clean_environment
from lanline.cluster.slurm import run_slurm
from lanline.files import sha256_file
from lanline.sidecars import ShardSidecar, TrainingSidecar
from slurm_cluster import ClusterWorkspace, job

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
JOBS = {"generate_shards": 3, "validate_training_data": 1, "train_torch": 1, "train_jax": 1, "evaluate_network": 2}
NETWORKS = ("ddm-lan-torch-s1", "ddm-lan-jax-s1")


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):
    """A finished run of config/quick.yaml on the cluster, tracked in a store that lies elsewhere, and its head."""
    workspace = ClusterWorkspace(tmp_path_factory.mktemp("on-cluster"), tmp_path_factory.mktemp("store") / "mlflow.db")
    head = workspace.head(overlays=("tracked.yaml",), profile="profiles/slurm")
    head.finish()
    return workspace, head


def test_every_stage_is_a_job_and_bookkeeping_is_none(finished):
    _, head = finished
    rules = (*JOBS, "open_experiments", "record_lineage", "write_report")
    assert {rule: len(ids) for rule in rules if (ids := head.jobs(rule))} == JOBS


def test_shards_and_networks_are_those_of_a_local_run(finished, finished_quick_run):
    workspace, _ = finished
    data = "results/quick/ddm/data"
    names = sorted(path.name for path in (finished_quick_run / data).glob("*.safetensors"))
    assert len(names) == 3
    for name in names:
        assert sha256_file(workspace / data / name) == sha256_file(finished_quick_run / data / name)
    for network in NETWORKS:
        weights = f"results/quick/networks/{network}/weights.safetensors"
        here, there = load_file(finished_quick_run / weights), load_file(workspace / weights)
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)


def test_runs_and_records_tell_job_node_and_what_was_asked_for(finished):
    from mlflow import MlflowClient

    workspace, head = finished
    client = MlflowClient(f"sqlite:///{workspace.store}")
    [id] = head.jobs("train_torch")
    sidecar = TrainingSidecar.read(workspace / f"results/quick/networks/{NETWORKS[0]}/run.json")
    tags = client.get_run(sidecar.run_id).data.tags
    known = job(id)
    assert tags["slurm_job_id"] == id
    assert tags["slurm_node"] == known["NodeList"]
    assert tags["slurm_partition"] == "main"
    assert tags["slurm_account"] == "research"
    assert tags["slurm_time_limit"] == known["TimeLimit"]
    assert tags["slurm_requested"].startswith("cpu=2,mem=3003M,node=1")
    records = [ShardSidecar.read(path) for path in sorted((workspace / "results/quick/ddm/data").glob("*.json"))]
    assert sorted(record.job_id for record in records) == sorted(head.jobs("generate_shards"))


def test_a_profile_is_written_for_this_cluster(cluster, tmp_path):
    workspace = ClusterWorkspace(tmp_path)
    text = (tmp_path / "profiles/site/config.yaml").read_text()
    profile = yaml.safe_load(text)
    shipped = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    there = {"slurm_partition": "main", "slurm_account": "research"}
    assert profile["default-resources"] == shipped["default-resources"] | there
    assert profile["resources"] == {"mem_mb": 4000, "runtime": 24 * 60}
    assert "spot" in text  # the others are listed
    assert "train_torch: {slurm_partition: gpu}" in text
    # Its limits hold for a job that would ask for more.
    workspace.overlay("long.yaml", "training: {epochs: 100000000}")
    head = workspace.head("-n", "torch_networks", overlays=("long.yaml",))
    assert "runtime=1440" in head.finish()
    command = [Path(sys.executable).with_name("lanline"), "slurm-profile"]
    again = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    assert again.returncode != 0
    assert "already exists" in again.stderr


def test_an_unknown_account_is_told_before_anything_runs(cluster, tmp_path):
    head = ClusterWorkspace(tmp_path).head(
        "shards", options=("--retries", "0", "--default-resources", "slurm_account=nobodys")
    )
    assert "nobodys" in head.finish(fails=True)
    assert "nobodys" not in run_slurm("squeue", "--noheader", "--format=%a")
