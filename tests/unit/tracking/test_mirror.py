"""The mirror in MLflow on a real SQLite store: complete, once, however often it is interrupted."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lanline.errors import UserError
from lanline.experiment import BaseExperiment
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.events import journals
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import Position, is_complete, position_file, read_position
from lanline.tracking.journal.record import read_run
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import Store, StoreUnavailable, connect, create_experiments, resolve_store
from lanline.tracking.mlflow.sync import sync

pytest.importorskip("mlflow")


@pytest.fixture
def store(tmp_path, empty_database) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return resolve_store(f"sqlite:///{tmp_path}/mlflow.db")


def history(store: Store, run_id: str, metric: str) -> list[tuple[int, float, int]]:
    found = connect(store).get_metric_history(run_id, metric)
    return [(point.step, point.value, point.timestamp) for point in found]


def runs_of(store: Store, experiment: str) -> list:
    client = connect(store)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def record(folder: Path, store: Store | None, **settings) -> object:
    with open_run(folder, "n", "e", store=store, params={"lr": 0.1}, **settings) as run:
        for step in range(1, 4):
            run.log_metrics({"loss": 1 / step}, step)
        (folder / "net.txt").write_text("weights")
        run.log_artifact(folder / "net.txt", "network")
        run.log_dataset("ddm-data", "ab" * 32, "/data", "training", profile={"rows": 10})
    return run


def test_mlflow_has_what_the_journal_has(tmp_path, store):
    run = record(tmp_path, store, tags={"dataset_id": "d1"}, description="about it")
    tracked = connect(store).get_run(run.run_id)
    events = [json.loads(line) for line in run.journal.read_text().splitlines()]
    logged = [event for event in events if event["event"] == "metrics"]
    assert history(store, run.run_id, "loss") == [(e["step"], e["metrics"]["loss"], e["time"]) for e in logged]
    assert tracked.info.status == "FINISHED"
    assert (tracked.info.start_time, tracked.info.end_time) == (events[0]["time"], events[-1]["time"])
    assert tracked.data.params == {"lr": "0.1"}
    assert tracked.data.tags["lanline.key"] == run.key
    assert tracked.data.tags["dataset_id"] == "d1"
    assert tracked.data.tags["mlflow.note.content"] == "about it"
    [dataset] = tracked.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("ddm-data", ("ab" * 32)[:36])
    assert {tag.key: tag.value for tag in dataset.tags}["mlflow.data.context"] == "training"
    copy = Path(tracked.info.artifact_uri) / "network" / "net.txt"
    assert copy.read_text() == "weights"
    assert tmp_path / "mlartifacts" in copy.parents
    assert is_complete(run.journal)
    assert sync(tmp_path, store) == []


def test_a_mirror_may_be_cut_off_anywhere_and_repeated(tmp_path, store):
    """Every prefix of the journal, brought over with the position of the mirror lost each time."""
    run = record(tmp_path / "whole", None)
    lines = run.journal.read_text().replace('"store": null', f'"store": "{store.shown}"').splitlines(keepends=True)
    cut = tmp_path / "cut" / "journal" / run.journal.name
    cut.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "whole" / "net.txt", tmp_path / "cut" / "net.txt")
    for end in range(len(lines) + 1):
        cut.write_text("".join(lines[:end]))
        mirror(cut, store)
        position_file(cut).unlink(missing_ok=True)
    position = mirror(cut, store)
    [only] = runs_of(store, "e")
    assert only.info.run_id == position.run_id
    assert only.info.status == "FINISHED"
    assert [point[:2] for point in history(store, position.run_id, "loss")] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(connect(store).get_run(position.run_id).inputs.dataset_inputs) == 1


def test_a_forced_run_replaces_the_one_before(tmp_path, store):
    first, second = record(tmp_path, store), record(tmp_path, store)
    client = connect(store)
    assert client.get_run(first.run_id).data.tags["superseded_by"] == second.run_id
    assert client.get_run(second.run_id).data.tags["supersedes"] == first.run_id
    with pytest.raises(RuntimeError), open_run(tmp_path, "n", "e", store=store, params={"lr": 1}):
        raise RuntimeError("does not replace what works")
    assert "superseded_by" not in client.get_run(second.run_id).data.tags
    client.delete_run(second.run_id)
    with open_run(tmp_path, "n", "e", store=store, params={"lr": 2}) as third:
        pass
    assert third.run_id
    assert all(is_complete(journal) for journal in journals(tmp_path))


def test_an_interrupted_run_is_gone_on_with(tmp_path, store):
    with suppress(RuntimeError), open_run(tmp_path, "n", "e", store=store) as first:
        first.log_metrics({"loss": 1.0}, 1)
        raise RuntimeError("power")
    failed = connect(store).get_run(first.run_id)
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "RuntimeError: power")
    with open_run(tmp_path, "n", "e", store=store) as second:
        second.log_metrics({"loss": 0.5}, 2)
    [only] = runs_of(store, "e")
    assert only.info.run_id == first.run_id == second.run_id
    assert only.info.status == "FINISHED"
    assert "power" in only.data.tags["resumed"]
    assert "reason" not in only.data.tags
    assert [point[:2] for point in history(store, first.run_id, "loss")] == [(1, 1.0), (2, 0.5)]


def test_a_run_deleted_by_hand_is_not_made_again(tmp_path, store):
    with pytest.raises(RuntimeError), open_run(tmp_path, "n", "e", store=store) as run:
        raise RuntimeError
    connect(store).delete_run(run.run_id)
    with amend_run(tmp_path, store) as later:
        later.log_metrics({"mae": 1})
    assert runs_of(store, "e") == []
    assert is_complete(run.journal)
    with open_run(tmp_path, "n", "e", store=store) as again:  # unless the work itself is done again
        again.log_metrics({"loss": 1})
    assert again.key == run.key
    [new] = runs_of(store, "e")
    assert (new.info.status, new.data.metrics) == ("FINISHED", {"mae": 1.0, "loss": 1.0})


def test_a_changed_file_is_never_attached_to_an_older_run(tmp_path, store):
    run = record(tmp_path, None)
    run.journal.write_text(run.journal.read_text().replace('"store": null', f'"store": "{store.shown}"'))
    (tmp_path / "net.txt").write_text("weights of a later run")
    assert "run " in sync(tmp_path, store)[0]
    [tracked] = runs_of(store, "e")
    assert "sha256" in tracked.data.tags["artifact_not_kept.net.txt"]
    assert connect(store).list_artifacts(tracked.info.run_id) == []


def test_links_are_given_their_ids_once_mlflow_knows_them(tmp_path, store):
    with open_run(tmp_path / "data", "d", "ddm-data-generation") as data:
        pass  # recorded while the store was down
    links = {"data_generation_run_id": f"run:{data.key}", "where": "experiment:ddm-data-generation"}
    with open_run(tmp_path / "train", "t", "e", store=store, links=links) as training:
        pass
    assert not is_complete(training.journal)
    data.journal.write_text(data.journal.read_text().replace('"store": null', f'"store": "{store.shown}"'))
    sync(tmp_path, store)
    assert is_complete(training.journal)
    tags = connect(store).get_run(training.run_id).data.tags
    assert tags["data_generation_run_id"] == data.run_id
    assert tags["where"] == data.experiment_id


def test_a_damaged_record_does_not_keep_the_others_out(tmp_path, store):
    damaged = tmp_path / "reports" / "a" / "journal" / "20000101T000000000-bad.jsonl"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("not json\n")
    odd_position = record(tmp_path / "reports" / "b", store).journal
    position_file(odd_position).write_text("{")
    whole = record(tmp_path / "reports" / "c", store)
    position_file(whole.journal).unlink()
    said = sync(tmp_path / "reports", store)
    assert ["not synced" in line for line in said] == [True, True, False]
    assert str(damaged) in said[0]
    assert odd_position.stem in said[1]
    assert is_complete(whole.journal)


def test_journals_of_another_store_or_of_none_stay_where_they_are(tmp_path, store):
    record(tmp_path / "a", None)
    other = record(tmp_path / "b", None)
    other.journal.write_text(other.journal.read_text().replace('"store": null', '"store": "http://elsewhere"'))
    [line] = sync(tmp_path, store)
    assert "http://elsewhere" in line
    assert not position_file(other.journal).exists()


def test_a_deleted_experiment_is_restored(tmp_path, store):
    ids = create_experiments(store, ["e"])
    connect(store).delete_experiment(ids["e"])
    assert record(tmp_path, store).experiment_id == ids["e"]


def test_long_values_and_many_params_arrive(tmp_path, store):
    params = {f"p{i}": i for i in range(250)} | {"long": "x" * 7000}
    with open_run(tmp_path, "n", "e", store=store, params=params) as run:
        for step in range(3):
            run.log_metrics({f"m{i}": i for i in range(700)}, step)
    tracked = connect(store).get_run(run.run_id)
    assert len(tracked.data.params) == 251
    assert tracked.data.params["long"].endswith("x [cut]")
    assert len(tracked.data.metrics) == 700
    assert len(history(store, run.run_id, "m699")) == 3


# --- an existing run -----------------------------------------------------------------------------------------
def test_going_on_with_an_existing_run(tmp_path, store):
    client = connect(store)
    existing = client.create_run(client.create_experiment("e"), run_name="by hand").info.run_id
    client.log_param(existing, "lr", "9")
    run = record(tmp_path, store, run_id=existing)
    tracked = client.get_run(existing)
    assert run.run_id == existing
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params == {"lr": "9"}
    assert tracked.data.tags["params_now"] == '{"lr": "0.1"}'
    with pytest.raises(UserError, match="finished"):
        open_run(tmp_path, "n", "e", store=store, run_id=existing)
    client.delete_run(existing)
    with pytest.raises(UserError, match="was deleted"):
        open_run(tmp_path, "n", "e", store=store, run_id=existing)
    with pytest.raises(UserError, match="not found"):
        open_run(tmp_path, "n", "e", store=store, run_id="0" * 32)


# --- beside a long run -----------------------------------------------------------------------------------------
LONG = """
import sys, time
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow.store import resolve_store
with open_run(sys.argv[1], "n", "e", store=resolve_store(sys.argv[2]), follow=True) as run:
    run.log_metrics({"loss": 1.0}, 1)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "reason"), [(signal.SIGKILL, "kill -9"), (signal.SIGTERM, "SIGTERM")])
def test_the_follower_shows_the_run_live_and_tells_how_it_ended(tmp_path, store, how, reason):
    child = subprocess.Popen(
        [sys.executable, "-c", LONG, str(tmp_path), store.uri],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout.readline() == "ready\n"
    journal = journals(tmp_path)[0]
    wait_until(lambda: read_position(journal).offset == journal.stat().st_size)
    [live] = runs_of(store, "e")
    assert (live.info.status, live.data.metrics) == ("RUNNING", {"loss": 1.0})
    child.send_signal(how)
    child.wait()
    wait_until(lambda: runs_of(store, "e")[0].info.status == "KILLED")
    wait_until(lambda: is_complete(journal))
    assert reason in runs_of(store, "e")[0].data.tags["reason"]


@pytest.mark.slow
def test_after_a_kill_of_everything_the_next_sync_ends_the_run(tmp_path, store):
    child = subprocess.Popen([sys.executable, "-c", LONG, str(tmp_path), store.uri], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    journal = journals(tmp_path)[0]
    wait_until(lambda: read_position(journal).run_id is not None)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    for pid in [*children, str(child.pid)]:  # as SLURM's SIGKILL does: the follower first
        subprocess.run(["kill", "-9", pid], check=True)
    child.wait()
    assert runs_of(store, "e")[0].info.status == "RUNNING"
    lines = sync(tmp_path, store)
    assert "its process died" in lines[0]
    assert runs_of(store, "e")[0].info.status == "KILLED"
    assert read_run(journal).status == "KILLED"


@pytest.mark.parametrize("follow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_next_run_of_a_folder_ends_a_dead_one_that_it_does_not_go_on_with(tmp_path, store, follow):
    dead = open_run(tmp_path, "n", "e", store=store).__enter__()
    mirror(dead.journal, store)
    dead._writer.close()  # as kill -9 does
    signal.signal(signal.SIGTERM, dead._old_handler)
    with open_run(tmp_path, "n", "e", store=store, params={"lr": 9}, follow=follow) as run:
        assert not run.resumed
    status = {found.info.run_id == run.run_id: found.info.status for found in runs_of(store, "e")}
    assert status == {True: "FINISHED", False: "KILLED"}


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


# --- what cannot be used ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_dead_server_is_known_quickly(tmp_path, scheme):
    store = resolve_store(f"{scheme}://ann:s3cret@127.0.0.1:9/x")
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught, open_run(tmp_path, "n", "e", store=store, on_outage="fail"):
        pytest.fail("nothing is computed")
    assert time.monotonic() - begin < 10
    assert "s3cret" not in str(caught.value)
    assert journals(tmp_path) == []


def test_a_position_of_another_version_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    Position().write(position_file(path))
    position_file(path).write_text('{"schema_version": 9}')
    with pytest.raises(UserError, match="schema_version"):
        read_position(path)


# --- BaseExperiment on MLflow ------------------------------------------------------------------------------------
class Fit(BaseExperiment):
    follow = False

    def prepare_data(self):
        return [1.0, 2.0]

    def build_model(self):
        return {}

    def train(self, model, data):
        for epoch in (1, 2):
            self.log_metrics({"loss": 1 / epoch}, epoch)

    def evaluate(self, model, data):
        from matplotlib.figure import Figure

        self.save_figure(Figure(), "fit")
        return {"accuracy": 0.95, "loss": 0.15}


def test_an_experiment_logs_config_metrics_and_figures(tmp_path, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    config = {"name": "my", "seed": 42, "mlflow_tracking": True, "mlflow_experiment_name": "numerical-optimization"}
    experiment = Fit(config, module_dir=tmp_path)
    assert experiment.run() == {"accuracy": 0.95, "loss": 0.15}
    [tracked] = runs_of(store, "numerical-optimization")
    assert tracked.data.metrics == {"accuracy": 0.95, "loss": 0.15}  # the evaluation's, though training logged loss
    assert tracked.data.params["seed"] == "42"
    client = connect(store)
    names = {item.path for item in client.list_artifacts(tracked.info.run_id)}
    assert names == {"config.yaml", "metrics.json", "figures"}
    assert [item.path for item in client.list_artifacts(tracked.info.run_id, "figures")] == ["figures/fit.png"]
