"""jaxtrain, torchtrain and generate with MLflow, on real stores: modes, precedence, going on with a run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file
from typer.testing import CliRunner

from lanline.commands.generate import main as generate
from lanline.commands.train import jaxtrain, torchtrain
from lanline.sidecars import DatasetSidecar, TrainingSidecar
from lanline.tracking.mlflow.store import connect, resolve_store

pytestmark = pytest.mark.workflow

BIN = Path(sys.executable).parent
CONFIG = """
data: {shards: 3, thetas_per_shard: 16, rows_per_theta: 25}
models: [ddm]
networks: [{name: small, hidden_layers: [8], activations: [tanh], features: raw}]
training: {epochs: 2, batch_size: 128}
"""
SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_LOCATION", "MLFLOW_EXPERIMENT_NAME")


def run(application, *arguments, fails: bool = False) -> str:
    done = CliRunner().invoke(application, [str(argument) for argument in arguments])
    assert (done.exit_code != 0) == fails, done.output
    if fails:
        assert "Traceback" not in done.output
    return done.output


def train(*arguments, application=torchtrain, base: str = "nets", fails: bool = False) -> str:
    options = ("--config-path", "config.yaml", "--networks-path-base", base, "--threads", 1)
    return run(application, *options, *arguments, fails=fails)


def sidecar(base: str = "nets") -> TrainingSidecar:
    [path] = Path(base).rglob("run.json")
    return TrainingSidecar.read(path)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A folder with an empty store, a data set made by `generate` that it records, and the configuration."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "config.yaml").write_text(CONFIG)
    connect(resolve_store(f"sqlite:///{folder}/empty.db"))
    shutil.copy(folder / "empty.db", folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    options = ("--config-path", folder / "config.yaml", "--output", folder / "data", "--cores", 1)
    run(generate, *options, "--mlflow-run-name", "first data", "--mlflow-tracking-uri", uri)
    return folder


@pytest.fixture(autouse=True)
def folder(template, tmp_path, monkeypatch) -> Path:
    """The working directory of a test: the template's configuration and store (whose data stay where they were)."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name in ("config.yaml", "mlflow.db"):
        shutil.copy(template / name, tmp_path)
    return tmp_path


def client(uri: str | None = None) -> MlflowClient:
    return connect(resolve_store(uri))


def experiment_id(name: str = "ddm-data-generation", uri: str | None = None) -> str:
    return client(uri).get_experiment_by_name(name).experiment_id


def artifacts(run_id: str, folder: str | None = None, uri: str | None = None) -> set[str]:
    return {entry.path.rsplit("/", 1)[-1] for entry in client(uri).list_artifacts(run_id, folder)}


# --- the three modes --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("application", [torchtrain, jaxtrain], ids=["torch", "jax"])
def test_mlflow_first_finds_the_folder_and_records_the_lineage(template, application):
    output = train("--data-generation-experiment-id", experiment_id(), application=application)
    assert "all 3 recorded files" in output
    assert "by content" in output
    dataset, found = DatasetSidecar.read(template / "data/dataset.json"), sidecar()
    assert (found.dataset_id, found.data_generation_run_id) == (dataset.dataset_id, dataset.run_id)
    recorded = client().get_run(found.run_id)
    assert recorded.info.status == "FINISHED"
    tags = recorded.data.tags
    assert tags["data_generation_experiment_id"] == dataset.experiment_id
    assert tags["data_generation_run_id"] == dataset.run_id
    assert tags["dataset_id"] == recorded.inputs.dataset_inputs[0].dataset.digest == dataset.dataset_id
    path = client().download_artifacts(found.run_id, "files_used.json")
    assert json.loads(Path(path).read_text()) == {
        "training": ["shard-00001.safetensors", "shard-00002.safetensors"],
        "validation": ["shard-00000.safetensors"],
    }
    assert {"model.onnx", "weights.safetensors", "network.json", "history.csv"} <= artifacts(found.run_id, "network")
    state = ".pt" if application is torchtrain else ".jax"
    assert any(name.endswith(state) for name in artifacts(found.run_id, "training_output"))
    assert {"config.yaml", "metrics.json"} <= artifacts(found.run_id)
    assert not Path("mlruns").exists()


def test_a_name_for_the_run_of_a_data_set(template):
    run_id = DatasetSidecar.read(template / "data/dataset.json").run_id
    assert client().get_run(run_id).info.run_name == "first data"


def test_mlflow_first_says_so_when_the_folder_has_moved(template, folder):
    shutil.copytree(template / "data", "own")
    run(generate, "--config-path", "config.yaml", "--output", "own", "--mlflow-on", "--mlflow-experiment-name", "moved")
    shutil.move("own", "elsewhere")
    moved = experiment_id("moved")
    assert "moved, or on another machine" in train("--data-generation-experiment-id", moved, fails=True)
    train("--data-generation-experiment-id", moved, "--training-data-folder", "elsewhere")


def test_validation_compares_contents_and_names_what_is_wrong(template):
    shutil.copytree(template / "data", "data")
    options = ("--data-generation-experiment-id", experiment_id(), "--training-data-folder", "data")
    shutil.copy("data/shard-00000.safetensors", "data/extra.safetensors")
    assert "extra: extra.safetensors" in train(*options)
    used = json.loads(next(Path("nets").rglob("files_used.json")).read_text())
    assert "extra.safetensors" not in used["training"] + used["validation"]
    shard = Path("data/shard-00001.safetensors")
    shard.write_bytes(bytes(shard.stat().st_size))  # same name and size, other content
    Path("data/shard-00002.safetensors").unlink()
    output = train(*options, base="never", fails=True)
    assert "missing: shard-00002.safetensors" in output
    assert "different: shard-00001.safetensors (different sha256)" in output
    assert "shard-00000" not in output
    assert not Path("never").exists()


def test_several_data_sets_are_listed_and_one_is_chosen(template, folder):
    run(generate, "--config-path", "config.yaml", "--output", "other", "--seed", 9, "--mlflow-on", "--cores", 1)
    folders = (template / "data", folder / "other")
    first, second = (DatasetSidecar.read(path / "dataset.json").dataset_id for path in folders)
    options = ("--data-generation-experiment-id", experiment_id())
    output = train(*options, fails=True)
    assert "2 data sets; choose one with --dataset-id" in output
    assert first in output
    assert second in output
    train(*options, "--dataset-id", second[:6])
    assert sidecar().dataset_id == second
    assert "has only" in train(*options, "--dataset-id", "ffff", fails=True)


def test_traditional_mode_records_the_run_but_no_experiment_of_data(template):
    train("--training-data-folder", template / "data", "--mlflow-on", "--mlflow-run-name", "my run")
    recorded = client().get_run(sidecar().run_id)
    assert recorded.info.run_name == "my run"
    assert "data_generation_experiment_id" not in recorded.data.tags
    assert recorded.data.tags["dataset_id"] == DatasetSidecar.read(template / "data/dataset.json").dataset_id


def test_an_experiment_that_is_not_there_or_has_no_data_is_named():
    assert "no experiment with id 77" in train("--data-generation-experiment-id", 77, fails=True)
    empty = client().create_experiment("empty")
    assert "has no finished run with a data set" in train("--data-generation-experiment-id", empty, fails=True)


# --- data recorded by ssm-simulators' own `generate` ------------------------------------------------------------------
@pytest.fixture(scope="module")
def ssms_data(template) -> tuple[Path, str]:
    """Pickles that two runs of ssm-simulators' `generate` made into one folder, and the id of their experiment."""
    (template / "ssms.yaml").write_text(
        "MODEL: ddm\nGENERATOR_APPROACH: lan\nPIPELINE: {N_PARAMETER_SETS: 4, N_SUBRUNS: 1}\n"
        "SIMULATOR: {N_SAMPLES: 300, DELTA_T: 0.001}\nTRAINING: {N_SAMPLES_PER_PARAM: 50}\nESTIMATOR: {TYPE: kde}\n"
    )
    uri = f"sqlite:///{template}/ssms.db"
    shutil.copy(template / "empty.db", template / "ssms.db")
    for part in ("one", "two"):
        command = [sys.executable, "-m", "ssms.cli.generate", "--config-path", "ssms.yaml", "--output", template]
        command += ["--mlflow-run-name", part, "--mlflow-experiment-name", "theirs", "--mlflow-tracking-uri", uri]
        subprocess.run(command, cwd=template, check=True, capture_output=True)
    return next(template.rglob("*.pickle")).parent, experiment_id("theirs", uri)


@pytest.mark.slow
def test_data_that_ssm_simulators_recorded_train_in_both_modes(template, ssms_data):
    data, theirs = ssms_data
    options = ("--data-generation-experiment-id", theirs, "--mlflow-tracking-uri", f"sqlite:///{template}/ssms.db")
    assert "all 2 recorded files" in (output := train(*options))
    assert "by name and size" in output
    used = json.loads(next(Path("nets").rglob("files_used.json")).read_text())
    assert sorted(used["training"] + used["validation"]) == sorted(path.name for path in data.glob("*.pickle"))
    shutil.copytree(data, "copy")
    train(*options, "--training-data-folder", "copy", base="again")
    first, second = sorted(Path("copy").glob("*.pickle"))
    first.write_bytes(first.read_bytes()[:-10])
    second.unlink()
    output = train(*options, "--training-data-folder", "copy", base="never", fails=True)
    assert f"missing: {second.name}" in output
    assert f"different: {first.name}" in output


# --- precedence -------------------------------------------------------------------------------------------------------
def test_the_default_is_sqlite_in_the_working_directory(template):
    train("--training-data-folder", template / "data", "--mlflow-on")
    run_id = sidecar().run_id
    assert client("sqlite:///mlflow.db").get_run(run_id).info.status == "FINISHED"
    assert sidecar().experiment_name == "ddm-training"
    assert not Path("mlruns").exists()


def test_each_setting_comes_from_its_option_or_its_environment_variable(template, folder, monkeypatch):
    """Shared cluster use: absolute SQLite URI and artifact location by environment; one option over one variable."""
    shared = folder / "shared"
    shared.mkdir()
    for name in ("tracking.db", "other.db"):
        shutil.copy(template / "empty.db", shared / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/tracking.db")
    monkeypatch.setenv("MLFLOW_ARTIFACT_LOCATION", f"{shared}/artifacts")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from-environment")

    def where(base: str, *options) -> tuple[str, str, str]:
        train("--training-data-folder", template / "data", "--mlflow-on", *options, base=base)
        found = sidecar(base)
        there = connect(resolve_store(found.tracking_uri)).get_experiment(found.experiment_id)
        return found.tracking_uri.rsplit("/", 1)[-1], there.name, there.artifact_location

    assert where("a") == ("tracking.db", "from-environment", f"{shared}/artifacts")
    assert where("b", "--mlflow-experiment-name", "opted") == ("tracking.db", "opted", f"{shared}/artifacts")
    options = ("--mlflow-experiment-name", "placed", "--mlflow-artifact-location", "./here")
    assert where("c", *options) == ("tracking.db", "placed", f"{folder}/here")
    other = ("--mlflow-tracking-uri", f"sqlite:///{shared}/other.db")
    assert where("d", *other) == ("other.db", "from-environment", f"{shared}/artifacts")


@pytest.mark.slow
def test_a_server_is_a_store_like_others(template, folder):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(template / "empty.db", "server.db")
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--backend-store-uri": f"sqlite:///{folder}/server.db",
        "--artifacts-destination": f"{folder}/served",
        "--workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(120):
            time.sleep(0.5)
            try:
                connect(resolve_store(uri))
                break
            except ValueError:  # not there yet
                continue
        run(generate, "--config-path", "config.yaml", "--output", "own", "--mlflow-on", "--mlflow-tracking-uri", uri)
        made = experiment_id(uri=uri)
        train("--data-generation-experiment-id", made, "--mlflow-tracking-uri", uri)
        found = client(uri).get_run(sidecar().run_id)
        assert found.info.status == "FINISHED"
        assert "model.onnx" in artifacts(sidecar().run_id, "network", uri)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


# --- going on with a run ----------------------------------------------------------------------------------------------
def test_a_killed_training_goes_on_in_its_own_run(template):
    """Killed without warning, then the same command with the run's id: the checkpoint's epoch, the same MLflow run."""
    slow = CONFIG.replace("[8]", "[400, 400]").replace("[tanh]", "[tanh, tanh]").replace("epochs: 2", "epochs: 50")
    Path("config.yaml").write_text(slow.replace("batch_size: 128", "batch_size: 8"))
    command = [BIN / "torchtrain", "--config-path", "config.yaml", "--training-data-folder", template / "data"]
    command += ["--networks-path-base", "nets", "--threads", "1", "--mlflow-on"]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(Path("nets").rglob("checkpoint.safetensors")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGSTOP)  # it goes no further while MLflow takes the run and its first epochs
    run_id = None
    for _ in range(240):
        time.sleep(0.25)
        for position in Path("nets").rglob("*.mirror.json"):
            run_id = json.loads(position.read_text())["run_id"]
        if run_id and client().get_metric_history(run_id, "train_loss"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert client().get_run(run_id).info.status == "RUNNING"
    assert list(Path("nets").rglob("checkpoint.safetensors"))
    output = subprocess.run([*command, "--mlflow-run-id", run_id], capture_output=True, text=True, check=True).stderr
    assert "resuming from" in output
    assert sidecar().run_id == run_id
    recorded = client().get_run(run_id)
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["epochs"] == 50
    steps = [point.step for point in client().get_metric_history(run_id, "train_loss")]
    assert len(steps) == len(set(steps))
    assert "resumed" in recorded.data.tags
    assert not list(Path("nets").rglob("checkpoint.safetensors"))


def test_a_run_of_another_program_that_is_unfinished_is_gone_on_with(template):
    mine = client().create_run(client().create_experiment("mine"), run_name="opened before")
    train("--training-data-folder", template / "data", "--mlflow-run-id", mine.info.run_id)
    recorded = client().get_run(mine.info.run_id)
    assert recorded.info.status == "FINISHED"
    assert "train_loss" in recorded.data.metrics
    assert sidecar().run_id == mine.info.run_id


def test_a_finished_deleted_or_unknown_run_is_refused_and_left_as_it_is(template):
    mine = client()
    finished = mine.create_run("0")
    mine.set_terminated(finished.info.run_id, "FINISHED")
    deleted = mine.create_run("0")
    mine.delete_run(deleted.info.run_id)
    expected = {
        finished.info.run_id: "resumed (finished)",
        deleted.info.run_id: "was deleted",
        "abc123def456": "not found",
    }
    for run_id, message in expected.items():
        options = ("--training-data-folder", template / "data", "--mlflow-run-id", run_id)
        assert message in train(*options, fails=True)
    assert not Path("nets").exists()
    assert client().get_run(finished.info.run_id).data.metrics == {}


# --- without MLflow ---------------------------------------------------------------------------------------------------
def without_mlflow(*arguments) -> subprocess.CompletedProcess:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from lanline.commands.train import torchtrain; torchtrain(sys.argv[1:])"
    )
    options = ("--config-path", "config.yaml", "--networks-path-base", "nets")
    command = [sys.executable, "-c", code, *options, *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_without_mlflow_mlflow_on_warns_and_trains(template):
    done = without_mlflow("--training-data-folder", template / "data", "--mlflow-on")
    assert done.returncode == 0, done.stderr
    assert "MLflow is not installed here (`pip install lanline[mlflow]` adds it)" in done.stderr
    assert sidecar().run_id is None
    assert list(Path("nets").rglob("model.onnx"))


@pytest.mark.parametrize("option", ["--data-generation-experiment-id", "--mlflow-run-id"])
def test_without_mlflow_an_option_that_needs_it_is_an_error(template, option):
    done = without_mlflow("--training-data-folder", template / "data", option, "1")
    assert done.returncode == 1
    assert "pip install lanline[mlflow]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("nets").exists()


# --- one program ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_command_gives_the_network_that_the_rule_gives(finished_quick_run, framework):
    quick = finished_quick_run.folder
    command = [BIN / f"{framework}train", "--config-path", quick / "config/quick.yaml", "--threads", "2"]
    command += ["--training-data-folder", quick / "results/quick/ddm/data", "--networks-path-base", "nets"]
    subprocess.run(command, check=True)  # a new process: JAX takes its number of threads once
    rule = load_file(quick / f"results/quick/networks/ddm-lan-{framework}-s1/weights.safetensors")
    found = load_file(next(Path("nets").rglob("weights.safetensors")))
    for name, array in rule.items():
        np.testing.assert_array_equal(found[name], array)
    dataset = DatasetSidecar.read(quick / "results/quick/ddm/dataset.json")
    assert (sidecar().dataset_id, sidecar().lineage_id) == (dataset.dataset_id, dataset.lineage_id)
