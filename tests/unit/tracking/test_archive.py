"""Archives, pruning and what comes later, on real stores."""

import hashlib
import io
import json
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest

from lanline.commands.main import main
from lanline.dataset.inventory import Inventory, TrackedFile
from lanline.errors import UserError
from lanline.paths import INVENTORY
from lanline.stages.record_lineage import DatasetRecord, record_dataset
from lanline.tracking.admin.archive import export_run, import_archive
from lanline.tracking.admin.prune import parse_age, prune, select
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow.dataset_runs import read_inventory
from lanline.tracking.mlflow.store import Store, StoreUnavailable, connect

pytest.importorskip("mlflow")


def record_training(folder: Path, store: Store) -> tuple[str, str]:
    """A data set and a training on it; gives their run ids."""
    folder.mkdir(exist_ok=True)
    (folder / INVENTORY).write_text('{"files": [{"file": "shard-0"}]}')
    (folder / "config.yaml").write_text("name: x")
    record = DatasetRecord(
        Inventory("ddm", "d" * 16, "l" * 16, (TrackedFile("shard-0", 1, 10, "s" * 64, 1),)),
        folder,
        params={"seed": 1},
        artifacts={folder / INVENTORY: "", folder / "config.yaml": "config"},
        experiment="ddm-data-generation",
        name="ddm-data",
    )
    data = record_dataset(record, folder / "data", store)
    tags = {"data_generation_run_id": data.run_id, "data_generation_experiment_id": data.experiment_id}
    with open_run(folder / "t", "ddm-lan", "ddm-training", store=store, params={"lr": 0.1}, tags=tags) as run:
        for step in range(3):
            run.log_metrics({"loss": 1 / (step + 1), "bad": float("nan")}, step)
        run.log_dataset("ddm-data", "ab" * 32, "/data", "training", profile={"rows": 10})
        (folder / "net.txt").write_text("weights")
        run.log_artifact(folder / "net.txt", "network")
    return data.run_id, run.run_id


def history(store: Store, run_id: str, metric: str) -> list[tuple]:
    return [(m.step, str(m.value), m.timestamp) for m in connect(store).get_metric_history(run_id, metric)]


def test_an_archive_brings_everything_into_another_store(tmp_path, new_store):
    here, there = new_store("here"), new_store("there")
    connect(there).create_experiment("in between")  # experiment ids differ
    data_id, run_id = record_training(tmp_path / "w", here)
    assert export_run(here, run_id, tmp_path / "run.zip") == [run_id, data_id]
    shutil.rmtree(tmp_path / "w")
    ids = import_archive(there, tmp_path / "run.zip")
    before, after = connect(here).get_run(run_id), connect(there).get_run(ids[run_id])
    assert after.data.params == before.data.params
    assert (after.info.status, after.info.start_time, after.info.end_time) == (
        before.info.status,
        before.info.start_time,
        before.info.end_time,
    )
    for metric in ("loss", "bad"):
        assert history(there, ids[run_id], metric) == history(here, run_id, metric)
    assert after.data.tags["imported_from_run_id"] == run_id
    assert after.data.tags["data_generation_run_id"] == ids[data_id]
    data = connect(there).get_run(ids[data_id])
    assert after.data.tags["data_generation_experiment_id"] == data.info.experiment_id
    assert dict(after.inputs.dataset_inputs[0].dataset) == dict(before.inputs.dataset_inputs[0].dataset)
    assert (Path(after.info.artifact_uri) / "network" / "net.txt").read_text() == "weights"
    assert read_inventory(there, ids[data_id])["files"][0]["file"] == "shard-0"
    assert import_archive(there, tmp_path / "run.zip") == ids
    with pytest.raises(UserError, match="not found"):
        export_run(here, "0" * 32, tmp_path / "no.zip")
    assert not (tmp_path / "no.zip").exists()


@pytest.mark.parametrize("gone", ["for good", "with its store", "to the trash"])
def test_a_training_whose_data_run_is_gone_is_exported_alone(tmp_path, new_store, capsys, gone):
    here, there = new_store("here"), new_store("there")
    data_id, run_id = record_training(tmp_path / "w", here)
    if gone == "for good":
        prune(here, select(here, "ddm-data-generation")[0])
    elif gone == "to the trash":
        connect(here).delete_run(data_id)
    else:  # `make clean`, then a training on the data that are still on disk
        with open_run(tmp_path / "t", "t", "e", store=there, tags={"data_generation_run_id": data_id}) as run:
            pass
        here, there, run_id = there, new_store("third"), run.run_id
    expected = [run_id, data_id] if gone == "to the trash" else [run_id]
    assert export_run(here, run_id, tmp_path / "run.zip") == expected
    assert (f"no longer has run {data_id}" in capsys.readouterr().err) == (gone != "to the trash")
    ids = import_archive(there, tmp_path / "run.zip")
    tags = connect(there).get_run(ids[run_id]).data.tags
    assert tags["original.data_generation_run_id"] == data_id


def test_an_archive_of_a_run_with_a_token_can_be_read(tmp_path, new_store):
    here, there = new_store("here"), new_store("there")
    text = 'read "http://host/?token=abc"'
    client = connect(here)
    run_id = client.create_run("0", tags={"note": text}).info.run_id
    client.set_terminated(run_id)
    export_run(here, run_id, tmp_path / "run.zip")
    ids = import_archive(there, tmp_path / "run.zip")
    assert connect(there).get_run(ids[run_id]).data.tags["note"] == 'read "http://host/?token=***"'


def test_a_run_that_went_on_when_it_was_exported_is_killed_where_it_is_imported(tmp_path, new_store):
    here, there = new_store("here"), new_store("there")
    run_id = connect(here).create_run("0").info.run_id
    export_run(here, run_id, tmp_path / "run.zip")
    client = connect(there)
    cut_off = client.create_run("0", tags={"imported_from_run_id": run_id}).info.run_id  # an import that was killed
    ids = import_archive(there, tmp_path / "run.zip")
    run = client.get_run(ids[run_id])
    assert run.info.run_id != cut_off
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "was still running when it was exported")
    assert import_archive(there, tmp_path / "run.zip") == ids


def rewritten(archive: Path, change) -> Path:
    """A copy of the archive whose members (name -> bytes) were changed by ``change``."""
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    copy = archive.with_name("changed.zip")
    with zipfile.ZipFile(copy, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    return copy


def with_member(name: str, content: bytes):
    def change(members: dict) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest["members"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        members |= {"manifest.json": json.dumps(manifest).encode(), name: content}

    return change


def with_runs(**values):
    """The first run of the archive with other values, and a manifest that fits."""

    def change(members: dict) -> None:
        runs = json.loads(members["runs.json"])
        runs[0] |= values
        with_member("runs.json", json.dumps(runs).encode())(members)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_runs(run_id="/home/me/.ssh"), "run_id"),
        (with_runs(run_id="../" + "0" * 29), "run_id"),
        (with_runs(status="BUSY"), "status"),
        (with_runs(params={"lr": 1}), "params"),
        (with_runs(metrics=[["loss", "many", 0, 0]]), "metrics"),
        (with_runs(datasets=[{"name": "d"}]), "datasets"),
        (with_member("runs.json", b"{}"), "runs.json"),
        (with_member("runs.json", b"[]"), "runs.json"),
        (lambda members: members.update({"runs.json": members["runs.json"] + b" "}), "was changed"),
        (lambda members: members.update({"artifacts/x": b"more"}), "was changed"),
        (lambda members: members.pop("runs.json"), "was changed"),
        (lambda members: members.pop("manifest.json"), "not a lanline archive"),
        (with_member("../outside", b"x"), "points outside"),
        (with_member("/etc/outside", b"x"), "points outside"),
        (with_member("artifacts/../../outside", b"x"), "points outside"),
        (with_member("artifacts\\..\\outside", b"x"), "points outside"),
    ],
)
def test_a_tampered_archive_is_refused(tmp_path, new_store, change, message):
    here, there = new_store("here"), new_store("there")
    with open_run(tmp_path / "w", "n", "e", store=here) as run:
        run.log_metrics({"a": 1})
    export_run(here, run.run_id, tmp_path / "run.zip")
    with pytest.raises(UserError, match=message):
        import_archive(there, rewritten(tmp_path / "run.zip", change))
    assert connect(there).get_experiment_by_name("e") is None


def test_an_import_that_mlflow_refuses_leaves_no_run(tmp_path, new_store):
    here, there = new_store("here"), new_store("there")
    with open_run(tmp_path / "w", "n", "e", store=here) as run:
        run.log_metrics({"a": 1})
    export_run(here, run.run_id, tmp_path / "run.zip")
    changed = rewritten(tmp_path / "run.zip", with_runs(params={"no=name": "1"}))
    with pytest.raises(UserError, match="refused"):
        import_archive(there, changed)
    client = connect(there)
    assert client.search_runs([client.get_experiment_by_name("e").experiment_id]) == []
    [imported] = import_archive(there, tmp_path / "run.zip").values()
    assert client.get_run(imported).info.status == "FINISHED"


def test_what_is_no_archive(tmp_path, new_store):
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(UserError, match="not a lanline archive"):
        import_archive(new_store("there"), tmp_path / "x.zip")
    with pytest.raises(UserError, match="No such file"):
        import_archive(new_store("other"), tmp_path / "y.zip")


# --- pruning, later results --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_pruning_removes_runs_and_their_artifacts(tmp_path, new_store, capsys):
    store = new_store("here")
    data_id, run_id = record_training(tmp_path / "w", store)
    [chosen], kept = select(store, "ddm-training")
    assert (chosen.run_id, kept) == (run_id, [])
    assert select(store, "ddm-training", parse_age("1h")) == ([], [])
    place = Path(connect(store).get_run(run_id).info.artifact_uri)
    assert place.is_dir()
    prune(store, [chosen])
    assert not place.exists()
    assert select(store, "ddm-training") == ([], [])
    assert connect(store).get_run(data_id).info.status == "FINISHED"
    with pytest.raises(UserError, match=r"it has: .*ddm-training"):
        select(store, "ddm-trainings")
    with pytest.raises(UserError, match="30d"):
        parse_age("a month")


def test_pruning_removes_nothing_that_it_did_not_show(tmp_path, new_store):
    store = new_store("here")
    client = connect(store)
    trashed = client.create_experiment("in the trash")
    there = client.create_run(trashed).info.run_id
    client.log_text(there, "weights", "net.txt")
    client.delete_experiment(trashed)
    client.set_terminated(client.create_run(client.create_experiment("old")).info.run_id)
    prune(store, select(store, "old")[0])
    assert select(store, "old") == ([], [])
    client.restore_experiment(trashed)
    assert [item.path for item in client.list_artifacts(there)] == ["net.txt"]


def test_pruning_leaves_no_empty_experiment_behind(new_store, monkeypatch, capsys):
    store = new_store("here")
    client = connect(store)
    old = client.create_experiment("old")
    client.set_terminated(client.create_run(old).info.run_id)
    main(["prune", "old", "--yes", "--older-than", "0d", "--uri", store.uri], standalone_mode=False)
    assert client.get_experiment(old).lifecycle_stage == "active"  # an age asks for runs, not for the experiment
    going_on = client.create_run(old).info.run_id
    main(["prune", "old", "--yes", "--uri", store.uri], standalone_mode=False)
    assert client.get_experiment(old).lifecycle_stage == "active"
    client.set_terminated(going_on)
    capsys.readouterr()
    main(["prune", "old", "--yes", "--uri", store.uri], standalone_mode=False)
    assert "experiment 'old' is empty" in capsys.readouterr().out
    assert client.get_experiment(old).lifecycle_stage == "deleted"
    empty = client.create_experiment("empty")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    main(["prune", "empty", "--uri", store.uri], standalone_mode=False)
    assert client.get_experiment(empty).lifecycle_stage == "active"
    main(["prune", "empty", "--yes", "--uri", store.uri], standalone_mode=False)
    assert client.get_experiment(empty).lifecycle_stage == "deleted"


def test_pruning_without_a_terminal_removes_nothing(new_store, monkeypatch, capsys):
    store = new_store("here")
    client = connect(store)
    run_id = client.create_run("0").info.run_id
    client.set_terminated(run_id)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    main(["prune", "Default", "--uri", store.uri], standalone_mode=False)
    assert "nothing removed" in capsys.readouterr().out
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    main(["prune", "Default", "--uri", store.uri], standalone_mode=False)
    assert "removed 1 runs" in capsys.readouterr().out
    assert client.get_experiment("0").lifecycle_stage == "active"  # MLflow's own


def test_later_results_go_to_the_same_run(tmp_path, new_store):
    store = new_store("here")
    _, run_id = record_training(tmp_path / "w", store)
    ended = connect(store).get_run(run_id).info.end_time
    for _ in range(2):  # an evaluation that is repeated adds nothing twice
        with amend_run(tmp_path / "w" / "t", store) as run:
            run.log_metrics({"mae": 0.05}, run.last_step)
    run = connect(store).get_run(run_id)
    assert run.data.metrics["mae"] == 0.05
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)
    assert len(history(store, run_id, "mae")) == 1


def test_sync_and_running_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["running"], standalone_mode=False)
    with open_run(Path("reports/x"), "n", "e"), pytest.raises(SystemExit):
        main(["running"])
    main(["sync"], standalone_mode=False)
    printed = capsys.readouterr()
    assert "reports is fully synced" in printed.out
    assert "still active" in printed.err
    with pytest.raises(SystemExit):
        main(["sync", "networks/report"])
    assert "networks/report does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "command"),
    [("reports/x", "make mlflow-sync"), ("my nets/report", "lanline sync 'my nets/report'")],
)
def test_after_an_outage_the_advice_finds_the_record(tmp_path, monkeypatch, capsys, new_store, folder, command):
    def away(_: Store) -> None:
        raise StoreUnavailable("away")

    monkeypatch.chdir(tmp_path)
    store = new_store("here")
    with monkeypatch.context() as outage:
        outage.setattr("lanline.tracking.mlflow.mirror.connect", away)
        with open_run(Path(folder), "n", "e", store=store):
            pass
    assert f"`{command}` syncs it" in capsys.readouterr().err
    arguments = shlex.split(command.removeprefix("lanline ").replace("make mlflow-sync", "sync"))
    main([*arguments, "--uri", store.uri], standalone_mode=False)
    assert ": run " in capsys.readouterr().out
