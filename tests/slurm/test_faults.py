"""What goes wrong on clusters, done to a real one: nothing is lost, nothing is made twice, no run is left RUNNING."""

import signal
import time
from pathlib import Path

import pytest

from lanline.cluster.slurm import run_slurm
from lanline.config import parse_config
from lanline.dataset.generate import generate_shard
from lanline.files import read_yaml, sha256_file
from lanline.networks.artifacts import read_history
from lanline.sidecars import ShardSidecar, TrainingSidecar
from slurm_cluster import ClusterWorkspace, Head, freeze_training, job, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
EPOCHS = 200
LONG = f"training: {{frameworks: [torch], epochs: {EPOCHS}}}"
NAME = "ddm-lan-torch-s1"
CHECKPOINT = f"results/quick/checkpoints/{NAME}.safetensors"


@pytest.fixture(scope="module")
def trainings(cluster, validated, tmp_path_factory):
    """Trainings beside other tests: too slow for its time limit, cancelled by hand, and on a GPU that is not there."""
    folder = tmp_path_factory.mktemp("trainings")
    heads = {}
    on_gpu = copy_of(validated, folder / "gpu")
    on_gpu.overlay("long.yaml", "training: {frameworks: [torch], device: gpu}")
    limited = ("--set-resources", "train_torch:runtime=attempt")  # minutes: the retry is to be done in its own
    for name, options, end in (
        ("slow", limited, freeze_training),
        ("cancelled", (), lambda id: run_slurm("scancel", id)),
    ):
        heads[name] = train(copy_of(validated, folder / name), options)
        id = heads[name].running("train_torch")
        wait_for_checkpoint(heads[name])
        end(id)  # at once: training on so few rows takes seconds
    heads["gpu"] = train(on_gpu, ("--set-resources", "train_torch:slurm_partition=gpu"))
    return heads


def copy_of(validated: ClusterWorkspace, folder: Path) -> ClusterWorkspace:
    workspace = validated.copy(folder)
    workspace.overlay("long.yaml", LONG)
    return workspace


def train(workspace: ClusterWorkspace, options: tuple[str, ...] = ()) -> Head:
    return workspace.head("torch_networks", overlays=("tracked.yaml", "long.yaml"), options=options)


def wait_for_checkpoint(head: Head) -> None:
    wait_until((head.folder / CHECKPOINT).exists, f"a checkpoint:\n{head.output}")


def assert_one_finished_run(head: Head, validated: ClusterWorkspace, jobs: list[str], after: str) -> dict[str, str]:
    """The training is one run of MLflow, which was interrupted ``after`` and has every epoch once. Gives its tags."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{validated.store}")
    folder = head.folder
    journals = list((folder / f"reports/quick/{NAME}/training/journal").glob("*.jsonl"))
    assert len(journals) == 1
    sidecar = TrainingSidecar.read(folder / f"results/quick/networks/{NAME}/run.json")
    run = client.get_run(sidecar.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["resumed"].startswith("1 time(s)")
    assert after in run.data.tags["resumed"]
    assert run.data.tags.get("slurm_job_ids") == ", ".join(dict.fromkeys(jobs))
    history = read_history(folder / f"results/quick/networks/{NAME}/history.csv")
    assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
    in_mlflow = client.get_metric_history(sidecar.run_id, "validation_loss")
    assert sorted(metric.step for metric in in_mlflow) == list(range(1, EPOCHS + 1))
    # It did not begin again: at most one checkpoint interval, here an epoch, is lost.
    log = (folder / "logs/quick/train_torch/ddm-lan-s1.log").read_text()
    assert "resuming from" in log
    assert not (folder / CHECKPOINT).exists()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    named = client.search_runs(experiments, f"tags.`lanline.key` = '{sidecar.tracking_key}'")
    assert len(named) == 1
    return run.data.tags


def test_a_shard_job_loses_its_node(trainings, cluster, tmp_path):
    workspace = ClusterWorkspace(tmp_path)
    data = "data: {shards: 10, shards_per_job: 10, thetas_per_shard: 3000, rows_per_theta: 400}"
    workspace.overlay("large.yaml", data)
    head = workspace.head("shards", overlays=("large.yaml",))
    unfinished = workspace / "results/quick/ddm/unfinished"
    wait_until(lambda: len(list(unfinished.rglob("*.json"))) >= 2, "two shards")
    id = head.running("generate_shards")
    node = job(id)["NodeList"]
    cluster.lose_node(node)
    made = {path.name: path.read_bytes() for path in unfinished.rglob("*.json")}
    assert 2 <= len(made) < 10
    try:
        head.finish()
    finally:
        cluster.start()
    assert head.jobs("generate_shards") == [id]  # SLURM put it into the queue again
    assert job(id)["Restarts"] == "1"
    folder = workspace / "results/quick/ddm/data"
    assert len(list(folder.glob("*.safetensors"))) == 10
    for name, record in made.items():  # with the time it took: what was complete is not made twice
        assert (folder / name).read_bytes() == record
    config = parse_config({**read_yaml(workspace / "config/config.yaml"), **read_yaml(workspace / "large.yaml")})
    for shard in (0, 9):
        again = generate_shard(config, "ddm", shard, tmp_path / "again.safetensors")
        record = ShardSidecar.read(folder / f"shard-{shard:05d}.json")
        assert again.sha256 == record.sha256 == sha256_file(folder / record.file)


def test_the_controller_restarts(cluster, tmp_path):
    workspace = ClusterWorkspace(tmp_path)
    head = workspace.head("shards")
    head.running("generate_shards")
    cluster.kill("slurmctld", signal.SIGTERM)
    time.sleep(8)  # the head asks in vain meanwhile
    cluster.start()
    head.finish()
    assert len(list(tmp_path.rglob("data/*.safetensors"))) == 3
    assert len(head.jobs("generate_shards")) == 3


def test_memory_is_exceeded_and_the_next_attempt_asks_for_more(cluster, tmp_path):
    workspace = ClusterWorkspace(tmp_path)
    workspace.overlay("large.yaml", "data: {shards: 2, thetas_per_shard: 5000, rows_per_theta: 1000}")
    shard = "results/quick/ddm/data/shard-00000.safetensors"
    options = ("--set-resources", "generate_shards:mem_mb=attempt*200")
    head = workspace.head(shard, overlays=("large.yaml",), options=options)
    head.finish()
    jobs = [job(id) for id in head.jobs("generate_shards")]
    assert [known["MinMemoryNode"] for known in jobs][:2] == ["200M", "400M"]
    assert jobs[0]["JobState"] in ("FAILED", "OUT_OF_MEMORY")
    assert jobs[-1]["JobState"] == "COMPLETED"


def test_a_training_is_preempted(cluster, validated, tmp_path):
    head = train(copy_of(validated, tmp_path / "run"), ("--set-resources", "train_torch:slurm_partition=spot"))
    wait_for_checkpoint(head)
    id = head.running("train_torch")
    # A job of a partition that takes precedence, on the same node: SIGTERM, three seconds, SIGKILL.
    run_slurm("sbatch", "--partition=urgent", "--cpus-per-task=2", "--mem=3000", "--output=/dev/null", "--wrap=sleep 1")
    head.finish()
    assert head.jobs("train_torch") == [id]
    tags = assert_one_finished_run(head, validated, [id], "SIGTERM")
    assert tags["slurm_restarts"] == "1"


def test_a_gpu_is_asked_for_and_a_failing_job_is_tried_as_often_as_the_profile_says(trainings):
    head = trainings["gpu"]
    assert "PyTorch finds none" in head.finish(fails=True)  # the cluster's node only says that it has one
    jobs = [job(id) for id in head.jobs("train_torch")]
    assert all("gres/gpu=1" in known["TRES"] and known["NodeList"] == "n3" for known in jobs)
    assert [known["MinMemoryNode"] for known in jobs] == ["3003M", "4000M", "4000M"]


def test_a_training_is_cancelled_by_hand(trainings, validated):
    head = trainings["cancelled"]
    head.finish()
    jobs = head.jobs("train_torch")
    assert len(jobs) == 2
    assert job(jobs[0])["JobState"] == "CANCELLED"
    assert_one_finished_run(head, validated, jobs, "SIGTERM")


def test_a_training_reaches_its_time_limit(trainings, validated):
    head = trainings["slow"]
    head.finish()
    jobs = head.jobs("train_torch")
    assert job(jobs[0])["JobState"] == "TIMEOUT"
    assert_one_finished_run(head, validated, jobs, "")
