"""The SQLite file of a store: whole or not there, never a foreign one, in a folder of any name, and moved with it."""

import multiprocessing
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lanline.tracking.journal.events import journals
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import is_complete
from lanline.tracking.mlflow.store import Store, StoreUnavailable, connect, connect_to_read, resolve_store
from lanline.tracking.mlflow.sync import sync

pytest.importorskip("mlflow")


def make(uri: str) -> None:
    connect(resolve_store(uri))


def in_a_child(uri: str) -> multiprocessing.Process:
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  once, in the parent: it takes seconds

    child = multiprocessing.get_context("fork").Process(target=make, args=(uri,))
    child.start()
    return child


def record(folder: Path, store: Store, **settings) -> object:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.txt").write_text("weights")
    with open_run(folder, "n", "e", store=store, **settings) as run:
        run.log_artifact(folder / "net.txt")
    return run


@pytest.mark.slow
def test_a_making_that_is_killed_at_any_moment_leaves_no_broken_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/first/mlflow.db"
    begin = time.monotonic()
    in_a_child(uri).join()
    seconds = time.monotonic() - begin
    uri, database = f"sqlite:///{tmp_path}/p/mlflow.db", tmp_path / "p" / "mlflow.db"
    unfinished = 0
    for moment in range(1, 16):
        child = in_a_child(uri)
        child.join(seconds * moment / 16)
        child.kill()
        child.join()
        if database.exists():
            connect_to_read(resolve_store(uri))
            database.unlink()
        else:
            unfinished += any(".making" in path.name for path in database.parent.glob(".*"))
    assert unfinished  # it was cut off in the middle at least once
    make(uri)
    connect_to_read(resolve_store(uri))
    assert {path.name for path in database.parent.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def half_made(database: Path, source: Path) -> None:
    """The file of a MLflow that was killed after its first tables."""
    with closing(sqlite3.connect(source)) as whole, closing(sqlite3.connect(database)) as half:
        for name in ("experiments", "runs"):
            query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
            half.execute(whole.execute(query, (name,)).fetchone()[0])
        half.commit()
    os.utime(database, (0, 0))


def test_a_store_that_was_left_half_made_is_made_again(tmp_path, empty_database, capsys):
    store = resolve_store(f"sqlite:///{tmp_path}/mlflow.db")
    half_made(tmp_path / "mlflow.db", empty_database)
    with pytest.raises(StoreUnavailable, match="incomplete"):
        connect_to_read(store)
    run = record(tmp_path / "r", store)
    assert "creating it again" in capsys.readouterr().err
    assert connect(store).get_run(run.run_id).info.status == "FINISHED"


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "mlflow.db").touch()
    assert record(tmp_path / "r", resolve_store(f"sqlite:///{tmp_path}/mlflow.db")).run_id


def foreign(database: Path, _: Path) -> None:
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE mine (x)")


def no_database(database: Path, _: Path) -> None:
    database.write_text("no database at all, but a text that is longer than a header of SQLite: " + "x" * 200)


def other_schema(database: Path, source: Path) -> None:
    shutil.copy(source, database)
    with closing(sqlite3.connect(database)) as store:
        store.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        store.execute("INSERT INTO registered_models (name) VALUES ('m')")
        store.commit()


def no_folder(database: Path, _: Path) -> None:
    database.parent.rmdir()
    database.parent.write_text("a file where the folder should be")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (foreign, "not an MLflow store"),
        (no_database, "not a SQLite file"),
        (other_schema, "mlflow db upgrade"),
        (no_folder, "Not a directory|File exists"),
    ],
)
def test_a_store_that_cannot_be_used_is_an_outage_and_stays_as_it_is(tmp_path, empty_database, capsys, spoil, message):
    database = tmp_path / "s" / "mlflow.db"
    database.parent.mkdir()
    store = resolve_store(f"sqlite:///{database}")
    spoil(database, empty_database)
    before = database.read_bytes() if database.exists() else None
    with pytest.raises(StoreUnavailable, match=message):
        open_run(tmp_path / "r", "n", "e", store=store, on_outage="fail")
    with pytest.raises(StoreUnavailable):
        connect_to_read(store)
    with open_run(tmp_path / "r", "n", "e", store=store):
        pass
    assert "the whole record is in" in capsys.readouterr().err
    assert (database.read_bytes() if database.exists() else None) == before
    assert not is_complete(journals(tmp_path / "r")[0])


def test_a_question_makes_nothing(tmp_path):
    with pytest.raises(StoreUnavailable, match="there is no MLflow store"):
        connect_to_read(resolve_store(f"sqlite:///{tmp_path}/new/mlflow.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fit?1", "My%20Project", "a#b", "a b&c;d@e:f'g", "größe"])
def test_a_project_in_a_folder_of_any_name_keeps_its_store_inside(tmp_path, monkeypatch, empty_database, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = resolve_store()
    assert store.database == folder / "mlflow.db"
    assert resolve_store(store.uri, store.artifact_location) == store  # as a process beside the training is told it
    shutil.copy(empty_database, folder / "mlflow.db")
    run = record(folder / "reports" / "r", store)
    assert (folder / "mlartifacts" / run.run_id / "artifacts" / "net.txt").read_text() == "weights"
    assert Path(connect(store).download_artifacts(run.run_id, "net.txt")).read_text() == "weights"
    assert sorted(path.name for path in tmp_path.iterdir() if "pytest" not in path.name) == [name]


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_the_artifacts_of_a_moved_project_stay_with_it(tmp_path, empty_database, how, capsys):
    old, new = tmp_path / "A", tmp_path / "B"
    old.mkdir()
    shutil.copy(empty_database, old / "mlflow.db")
    first = record(old / "r", resolve_store(f"sqlite:///{old}/mlflow.db")).run_id
    shutil.move(old, new) if how == "moved" else shutil.copytree(old, new)
    store = resolve_store(f"sqlite:///{new}/mlflow.db")
    second = record(new / "r2", store)
    assert (new / "mlartifacts" / second.run_id / "artifacts" / "net.txt").exists()
    assert old.exists() == (how == "copied")
    assert Path(connect(store).get_run(first).info.artifact_uri).is_relative_to(new)
    assert str(old / "mlartifacts") in capsys.readouterr().err
    if how == "copied":
        assert not (old / "mlartifacts" / second.run_id).exists()
        place = connect(resolve_store(f"sqlite:///{old}/mlflow.db")).get_run(first).info.artifact_uri
        assert Path(place).is_relative_to(old)


def test_artifacts_that_were_put_elsewhere_on_purpose_stay_there(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri, scratch = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "scratch" / "mlartifacts"
    first = record(tmp_path / "r", resolve_store(uri, str(scratch)))
    record(tmp_path / "r", resolve_store(uri))
    assert Path(connect(resolve_store(uri)).get_run(first.run_id).info.artifact_uri).is_relative_to(scratch)


def test_what_was_recorded_during_an_outage_is_synced_once_the_store_is_mended(tmp_path, empty_database):
    store = resolve_store(f"sqlite:///{tmp_path}/mlflow.db")
    no_database(tmp_path / "mlflow.db", empty_database)
    record(tmp_path / "r", store)
    (tmp_path / "mlflow.db").unlink()
    assert ": run " in sync(tmp_path, store)[0]
    assert sync(tmp_path, store) == []
