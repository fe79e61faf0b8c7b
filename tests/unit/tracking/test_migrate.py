"""Old file stores of MLflow, brought into a real SQLite store."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lanline.commands.main import main
from lanline.errors import UserError
from lanline.tracking.admin.migrate import migrate
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow.store import connect, resolve_store

pytest.importorskip("mlflow")

FILE_STORE = """
import mlflow
from pathlib import Path
mlflow.set_tracking_uri((Path.cwd() / "mlruns").as_uri())
mlflow.set_experiment("old work")
for name in ("a", "b"):
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_params({"lr": 0.1, "n": 3})
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_text("weights of " + name, "network/net.txt")
        with mlflow.start_run(run_name=name + " child", nested=True):
            mlflow.log_metric("m", 1.0)
"""


def digest_of_tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_a_file_store_is_brought_into_sqlite(tmp_path, monkeypatch, capsys):
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    old = tmp_path / "old"
    old.mkdir()
    subprocess.run([sys.executable, "-c", FILE_STORE], cwd=old, env=environment, check=True, capture_output=True)
    # The folder was moved since, as old stores are: its absolute places are wrong.
    source = shutil.move(old / "mlruns", tmp_path / "mlruns")
    before = digest_of_tree(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    main(["migrate", "mlruns"], standalone_mode=False)
    assert digest_of_tree(source) == before
    with pytest.raises(SystemExit):
        main(["migrate", "mlruns"])
    assert "already has runs" in capsys.readouterr().err
    # The old folder does not get in the way of new runs, though MLflow would take it for its store.
    with open_run(tmp_path / "r", "new", "new work", store=resolve_store()) as new:
        new.log_artifact(tmp_path / "mlruns" / "0" / "meta.yaml")
    assert new.run_id
    assert digest_of_tree(source) == before
    shutil.rmtree(source)  # what is there now stands on its own
    client = connect(resolve_store())
    experiment = client.get_experiment_by_name("old work")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"a", "b", "a child", "b child"}
    assert runs["a child"].data.tags["mlflow.parentRunId"] == runs["a"].info.run_id
    assert runs["a"].data.params == {"lr": "0.1", "n": "3"}
    assert len(client.get_metric_history(runs["a"].info.run_id, "loss")) == 5
    path = client.download_artifacts(runs["a"].info.run_id, "network/net.txt", str(tmp_path))
    assert Path(path).read_text() == "weights of a"


@pytest.mark.parametrize("busy", [True, False], ids=["a run begins", "the store is only open"])
def test_a_migration_takes_nothing_from_those_who_use_the_store(tmp_path, new_store, monkeypatch, busy):
    arrived, store = new_store("arrived"), new_store("here")
    old = connect(arrived).create_run("0").info.run_id
    client = connect(store)
    assert list(client.search_runs(["0"])) == []  # its connection stays open
    (tmp_path / "mlruns/0").mkdir(parents=True)
    (tmp_path / "mlruns/0/meta.yaml").write_text("name: Default")

    def migrate_filestore(command: list[str], **_) -> subprocess.CompletedProcess:
        shutil.copy(arrived.database, command[command.index("--target") + 1].removeprefix("sqlite:///"))
        if busy:
            client.create_run("0", run_name="meanwhile")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("lanline.tracking.admin.migrate.subprocess.run", migrate_filestore)
    monkeypatch.setattr(
        "lanline.tracking.admin.migrate._counts_of_source", lambda _: {"runs": 1, "params": 0, "metrics": 0}
    )
    if busy:
        with pytest.raises(UserError, match="already has runs"):
            migrate(tmp_path / "mlruns", store)
        assert [run.info.run_name for run in client.search_runs(["0"])] == ["meanwhile"]
    else:
        migrate(tmp_path / "mlruns", store)
        assert [run.info.run_id for run in client.search_runs(["0"])] == [old]
        later = client.create_run("0").info.run_id
        assert connect(resolve_store(store.uri)).get_run(later)
        with sqlite3.connect(store.database) as database:
            assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (2,)


@pytest.mark.parametrize("where", ["environment", "configuration"])
def test_a_setting_that_names_the_old_store_does_not_hinder_its_migration(tmp_path, monkeypatch, capsys, where):
    monkeypatch.chdir(tmp_path)
    Path("mlruns/0").mkdir(parents=True)
    Path("mlruns/0/meta.yaml").write_text("name: Default")
    Path("c.yaml").write_text("tracking: {uri: ./mlruns}" if where == "configuration" else "tracking: {}")
    if where == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    migrated = []
    monkeypatch.setattr("lanline.tracking.admin.migrate.migrate", lambda *to: migrated.append(to) or {"runs": 1})
    main(["migrate", "--config", "c.yaml", "./mlruns"], standalone_mode=False)
    assert migrated == [(Path("mlruns"), resolve_store("sqlite:///mlflow.db"))]
    printed = capsys.readouterr()
    assert "name the old store itself, ./mlruns" in printed.err
    assert "sqlite:///mlflow.db" in printed.err
    with pytest.raises(SystemExit):  # what was asked for is not replaced by something else
        main(["migrate", "./mlruns", "--uri", "./mlruns"])
    assert len(migrated) == 1


def test_what_is_no_file_store(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["migrate", str(tmp_path), "--uri", f"sqlite:///{tmp_path}/x.db"])
    assert "not a file store" in capsys.readouterr().err
