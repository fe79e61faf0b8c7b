"""The record on disk, without MLflow: complete, honest about endings, and free of credentials."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lanline.errors import UserError
from lanline.files import redact
from lanline.tracking.journal.events import Tags, journals, new_key, read_events, to_line
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.record import read_run
from lanline.tracking.journal.writer import end_if_dead, is_alive
from lanline.tracking.mlflow.store import resolve_store

CHILD = """
import os, sys, time
from lanline.tracking.journal.opening import open_run
with open_run(sys.argv[1], "n", "e", params={"lr": 0.1}) as run:
    run.log_metrics({"loss": 1.0}, step=1)
    print("ready", flush=True)
    time.sleep(60)
"""


def events_of(folder: Path) -> list[dict]:
    return [event.model_dump() for event, _ in read_events(journals(folder)[-1])]


def start_child(folder: Path) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_the_journal_holds_everything_in_order(tmp_path):
    (tmp_path / "net.txt").write_text("weights")
    with open_run(tmp_path, "ddm-lan", "ddm-training", params={"lr": 0.1}, tags={"dataset_id": "d1"}) as run:
        run.log_metrics({"loss": 0.5, "bad": float("nan"), "worse": float("inf")}, step=1)
        run.log_dataset("ddm-data", "ab" * 32, "/data", "training")
        run.log_artifact(tmp_path / "net.txt", "network")
    events = events_of(tmp_path)
    assert [event["event"] for event in events] == [
        "start",
        "params",
        "metrics",
        "dataset",
        "artifact",
        "end",
    ]
    start, params, metrics, dataset, artifact, end = events
    assert start["tags"]["dataset_id"] == "d1"
    assert "version.numpy" in start["tags"]
    assert params["params"] == {"lr": "0.1"}
    assert metrics["step"] == 1
    assert [float(metrics["metrics"][key]) for key in ("loss", "worse")] == [0.5, float("inf")]
    assert len(dataset["digest"]) == 36
    assert dataset["tags"]["digest"] == "ab" * 32
    assert (run.journal.parent / artifact["path"]).read_text() == "weights"
    assert end["status"] == "FINISHED"
    assert start["time"] <= metrics["time"] <= end["time"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RuntimeError("out of paper"), "FAILED", "RuntimeError: out of paper"),
        (KeyboardInterrupt(), "KILLED", "keyboard"),
        (SystemExit(1), "FAILED", "SystemExit: 1"),
        (SystemExit(0), "FINISHED", ""),
    ],
)
def test_an_ending_tells_the_truth(tmp_path, error, status, reason):
    with pytest.raises(type(error)), open_run(tmp_path, "n", "e"):
        raise error
    end = events_of(tmp_path)[-1]
    assert end["status"] == status
    assert reason in end["reason"]


def test_sigterm_ends_the_run_as_killed(tmp_path):
    child = start_child(tmp_path)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 128 + signal.SIGTERM
    end = events_of(tmp_path)[-1]
    assert end["status"] == "KILLED"
    assert "SIGTERM" in end["reason"]


def test_a_killed_run_is_known_to_be_dead_and_is_gone_on_with(tmp_path, capfd):
    child = start_child(tmp_path)
    journal = journals(tmp_path)[0]
    assert is_alive(journal)
    assert not end_if_dead(journal)
    child.kill()
    child.wait()
    with journal.open("a") as handle:
        handle.write('{"event": "metrics", "ti')  # the line that it died in
    assert not is_alive(journal)
    assert read_run(journal).status == "RUNNING"
    with open_run(tmp_path, "n", "e", params={"lr": 0.1}) as run:
        run.log_metrics({"loss": 1.0}, step=1)  # done again from the checkpoint: not doubled
        run.log_metrics({"loss": 0.5}, step=2)
    assert run.resumed
    assert "resuming run" in capfd.readouterr().err
    assert journals(tmp_path) == [journal]
    kinds = [event["event"] for event in events_of(tmp_path)]
    assert kinds == ["start", "params", "metrics", "resume", "tags", "links", "metrics", "end"]


def test_end_if_dead_writes_the_end_once(tmp_path):
    child = start_child(tmp_path)
    child.kill()
    child.wait()
    journal = journals(tmp_path)[0]
    assert end_if_dead(journal)
    assert not end_if_dead(journal)
    assert read_run(journal).status == "KILLED"
    assert "kill -9" in read_run(journal).tags["reason"]


def test_other_settings_or_a_finished_run_make_a_new_run(tmp_path):
    def record(rate: float, error: bool = False) -> str:
        try:
            with open_run(tmp_path, "n", "e", params={"lr": rate}) as run:
                if error:
                    raise RuntimeError
        except RuntimeError:
            pass
        return run.key

    first = record(0.1, error=True)
    assert record(0.2) != first
    second = record(0.2)
    third = record(0.2)
    assert len(journals(tmp_path)) == 4
    assert len({first, second, third}) == 3
    assert events_of(tmp_path)[0]["supersedes"] == second


@pytest.mark.parametrize("rate", [0.1, 0.2], ids=["same settings", "other settings"])
def test_two_writers_in_one_folder_are_refused(tmp_path, monkeypatch, rate):
    monkeypatch.setattr("lanline.tracking.journal.writer.PATIENCE", 0.1)
    child = start_child(tmp_path)
    try:
        with pytest.raises(UserError, match="is being written by another process"):
            open_run(tmp_path, "n", "e", params={"lr": rate}).__enter__()
        assert len(journals(tmp_path)) == 1
    finally:
        child.kill()
        child.wait()
    with open_run(tmp_path, "n", "e", params={"lr": rate}) as run:
        assert run.resumed == (rate == 0.1)


def test_a_param_does_not_change(tmp_path):
    with open_run(tmp_path, "n", "e", params={"lr": 0.1}) as run:
        run.log_params({"lr": 0.1})
        with pytest.raises(UserError, match=r"lr .* is 0\.1; it cannot change to 0\.2"):
            run.log_params({"lr": 0.2})
        with pytest.raises(UserError, match="cannot name"):
            run.log_metrics({"loss=": 1})


@pytest.mark.parametrize(
    "uri",
    [
        "http://ann:s3cret@host:5000/x",
        "postgresql+psycopg2://ann:s3cret@db/mlflow",
        "http://ann:s3cr@s3cret@host/",
        "postgresql://ann:with/s3cret@db/mlflow",
        "postgresql://ann:1/s3cret@db:5432/mlflow",
        "sqlite:///x.db?password=s3cret&a=b",
        "postgresql://db/mlflow?sslmode=verify-full&sslpassword=s3cret",
        "https://host/x?access_token=s3cret",
        "https://host/x?api_key=s3cret&sig=s3cret#token=s3cret",
        "https://bucket.host/key?X-Amz-Signature=s3cret",
        "mssql+pyodbc:///?odbc_connect=Driver%3D%7BX%7D%3BPWD%3Ds3cret",
        "mssql://host/db;PWD=s3cret",
        "https://host/x?s3cret",
    ],
)
def test_credentials_are_cut_out(tmp_path, uri):
    assert "s3cret" not in redact(f"failed: {uri} again")
    with (
        pytest.raises(RuntimeError),
        open_run(tmp_path, "n", "e", params={"uri": uri}, tags={"t": uri}) as run,
    ):
        raise RuntimeError(uri)
    assert "s3cret" not in run.journal.read_text()
    assert redact("http://a:b@host/x and s3://bucket/key") == "http://***@host/x and s3://bucket/key"
    assert redact("sqlite:///x.db?timeout=9") == "sqlite:///x.db?timeout=9"
    assert redact("http://host/#/experiments/3/runs/ab12") == "http://host/#/experiments/3/runs/ab12"


@pytest.mark.parametrize("text", ['["http://h/?token=abc"]', 'says "http://ann:abc@h"', "C:\\dir?token=abc\\x"])
def test_a_journal_stays_json_when_credentials_are_cut_out(tmp_path, text):
    with pytest.raises(RuntimeError), open_run(tmp_path, "n", "e", params={"p": text}, tags={"t": text}):
        raise RuntimeError(text)
    params, end = events_of(tmp_path)[1:]
    assert params["params"]["p"] == redact(text)
    assert redact(text) in end["reason"]
    with open_run(tmp_path, "n", "e"):  # a later run reads it
        pass


def test_a_journal_needs_no_mlflow_and_no_heavy_import(tmp_path):
    code = f"""
import sys
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow import dataset_runs
from lanline.tracking.mlflow import sync
from lanline.tracking.mlflow import store
with open_run({str(tmp_path)!r}, "n", "e") as run:
    run.log_metrics({{"a": 1}})
print(sorted({{"mlflow", "torch", "jax", "pandas"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- finding the store ---------------------------------------------------------------------------------------
def test_store_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    default = resolve_store()
    assert default.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert default.artifact_location == f"{tmp_path}/mlartifacts"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:pw@host:5000")
    assert resolve_store().shown == "http://***@host:5000"
    assert resolve_store().artifact_location is None
    monkeypatch.setenv("MLFLOW_ARTIFACT_LOCATION", "./art")
    assert resolve_store().artifact_location == f"{tmp_path}/art"
    given = resolve_store("sqlite:////abs/t.db?timeout=9", "s3://bucket/x")
    assert (given.uri, given.artifact_location) == ("sqlite:////abs/t.db?timeout=9", "s3://bucket/x")
    assert given.database == Path("/abs/t.db")


@pytest.mark.parametrize("uri", ["./mlruns", "/abs/mlruns", "file:///abs/mlruns", "mlflow.db", "sqlite://"])
def test_a_store_that_is_no_database_or_server_is_refused(uri):
    with pytest.raises(UserError, match=r"sqlite:///mlflow\.db"):
        resolve_store(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:with/s3cret@db/mlflow",
        "postgresql://ann:1/s3cret@db:5432/mlflow",
        "http://ann:with'quote-s3cret@host",
        "http://ann:with space-s3cret@host",
        "http://ann:s3cret",
        "http://[ann:s3cret",
        "file://ann:with/s3cret@host/mlruns",
        "sqlite://ann:s3cret@host/x.db",
    ],
)
def test_a_store_whose_password_cannot_be_told_is_refused_and_not_shown(uri):
    with pytest.raises(UserError, match="tracking URI") as caught:
        resolve_store(uri)
    assert "s3cret" not in str(caught.value)


def test_a_damaged_journal_is_named(tmp_path):
    path = tmp_path / "journal" / "x.jsonl"
    path.parent.mkdir()
    path.write_text("not json\n")
    with pytest.raises(UserError, match=r"x\.jsonl"):
        list(read_events(path))


def test_a_line_that_is_being_written_is_left_for_later(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(to_line(Tags(tags={"a": "b"})) + '{"event": "en')
    [(_, offset)] = read_events(path)
    with path.open("a") as handle:
        handle.write('d", "status": "FINISHED", "time": 1}\n')
    assert [event.event for event, _ in read_events(path, offset)] == ["end"]


def test_keys_sort_by_time_also_where_a_second_ends(monkeypatch):
    """Seconds and milliseconds come from one look at the clock: a key could be a second too old, and sort too early."""
    monkeypatch.setattr("lanline.tracking.journal.events.now", lambda: 1_700_000_000_999)
    assert new_key().startswith("20231114T221320999-")
