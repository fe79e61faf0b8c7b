"""A real MLflow server that is down, dies, hangs and comes back: nothing is lost, nothing waits for it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lanline.tracking.journal.events import Metrics, journals, read_events
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import is_complete
from lanline.tracking.journal.record import read_run
from lanline.tracking.mlflow.store import Store, StoreUnavailable, connect, resolve_store
from lanline.tracking.mlflow.sync import sync
from mlflow_server import PASSWORD, MlflowServer

pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with MlflowServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def store(server) -> Store:
    return resolve_store(server.uri)


TRAINING = """
import sys, time
from pathlib import Path
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow.store import resolve_store
folder, uri, epochs, seconds = Path(sys.argv[1]), sys.argv[2], 0, 0.2
with open_run(folder, "n", "e", store=resolve_store(uri), follow=True, params={"lr": 0.1, "where": uri}) as run:
    print("ready", flush=True)
    spent = 0.0
    while not (folder / "stop").exists():
        epochs += 1
        time.sleep(seconds)
        begin = time.perf_counter()
        run.log_metrics({"loss": 1 / epochs}, epochs)
        spent += time.perf_counter() - begin
    (folder / "net.txt").write_text("weights")
    run.log_artifact(folder / "net.txt")
    begin = time.perf_counter()
print(spent, time.perf_counter() - begin)
"""


def start_training(folder: Path, store: Store) -> subprocess.Popen:
    command = [sys.executable, "-c", TRAINING, str(folder), store.uri]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def delays(child: subprocess.Popen, folder: Path) -> tuple[float, float, str]:
    """Seconds that the training spent in recording its epochs, and at its end; and what it said."""
    (folder / "stop").touch()
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    loop, end = map(float, out.split())
    return loop, end, err


def assert_mirrored(journal: Path, store: Store) -> None:
    """Steps, values, times and the artifact are as the journal has them, once."""
    client = connect(store)
    start = read_run(journal)
    experiment = client.get_experiment_by_name("e")
    [run] = client.search_runs([experiment.experiment_id], f"tags.`lanline.key` = '{start.key}'")
    wanted = [
        (event.step, event.metrics["loss"], event.time)
        for event, _ in read_events(journal)
        if isinstance(event, Metrics)
    ]
    found = [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "loss")]
    assert found == wanted
    assert (run.info.status, run.info.start_time) == ("FINISHED", start.start_time)
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["net.txt"]


def assert_no_password(folder: Path) -> None:
    leaks = [path for path in folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert leaks == []


def test_down_at_the_start_and_replayed_later(tmp_path, server, store):
    server.kill()
    child = start_training(tmp_path, store)
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    followers = [line for line in listed.splitlines() if "lanline.tracking" in line and "--follow" in line]
    assert followers
    assert not any(PASSWORD in line for line in followers)
    time.sleep(3)
    loop, end, said = delays(child, tmp_path)
    assert loop < 5
    assert end < 30  # a plain client hangs for 246 s
    assert f"lanline sync {tmp_path}" in said
    assert PASSWORD not in said
    [journal] = journals(tmp_path)
    with pytest.raises(StoreUnavailable):
        sync(tmp_path, store)
    server.start()
    [line] = sync(tmp_path, store)
    assert "run " in line
    assert_mirrored(journal, store)
    assert sync(tmp_path, store) == []
    assert_no_password(tmp_path)
    assert_no_password(server.folder / "artifacts")
    assert PASSWORD.encode() not in (server.folder / "server.db").read_bytes()


def training_in_progress(folder: Path, server: MlflowServer, store: Store) -> tuple[subprocess.Popen, Path]:
    """A training, and its journal, which the server has in part."""
    if server.process is None:
        server.start()
    child = start_training(folder, store)
    [journal] = journals(folder)
    deadline = time.monotonic() + 20
    while not is_complete(journal) and time.monotonic() < deadline:
        time.sleep(0.1)
    return child, journal


def test_a_server_that_dies_in_the_middle_and_comes_back(tmp_path, server, store):
    child, journal = training_in_progress(tmp_path, server, store)
    server.kill()
    time.sleep(4)
    server.start()
    loop, _, said = delays(child, tmp_path)
    assert loop < 5
    assert "lanline sync" not in said
    assert_mirrored(journal, store)
    assert_no_password(tmp_path)


def test_a_server_that_dies_and_a_mirror_that_is_killed(tmp_path, server, store):
    child, journal = training_in_progress(tmp_path, server, store)
    for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    server.kill()
    delays(child, tmp_path)
    server.start()
    sync(tmp_path, store)
    assert_mirrored(journal, store)


def test_on_outage_fail_computes_nothing(tmp_path, server, store):
    server.kill()
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match="is unreachable") as caught:
        open_run(tmp_path, "n", "e", store=store, on_outage="fail")
    assert time.monotonic() - begin < 10
    assert PASSWORD not in str(caught.value)
    assert journals(tmp_path) == []


def test_a_server_that_accepts_and_never_answers_is_known_within_ten_seconds(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = resolve_store(f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            connect(store)
        assert time.monotonic() - begin < 10
