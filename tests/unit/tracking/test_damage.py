"""Journals after a power cut, a flipped byte, or with a clock that went back."""

from pathlib import Path

import pytest

from lanline.errors import UserError
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.events import journals, new_key
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import position_file
from lanline.tracking.journal.record import read_run
from lanline.tracking.mlflow.store import Store, connect
from lanline.tracking.mlflow.sync import sync

pytest.importorskip("mlflow")


def record(folder: Path, store: Store | None, **settings) -> object:
    with open_run(folder, "n", "e", store=store, params={"lr": 0.1}, **settings) as run:
        for step in range(1, 4):
            run.log_metrics({"loss": 1 / step}, step)
    return run


@pytest.mark.parametrize("lines", [1, 2, 3, 4, 5])
def test_lines_that_a_power_cut_took_do_not_stop_the_sync(tmp_path, new_store, lines):
    """The position says that MLflow has more than there is; what MLflow has is right, and stays."""
    store = new_store("here")
    run = record(tmp_path / "r", store)
    ended = connect(store).get_run(run.run_id).info
    kept = run.journal.read_bytes().splitlines(keepends=True)[:-lines]
    run.journal.write_bytes(b"".join(kept))
    said = sync(tmp_path, store)
    assert len(said) == (1 if lines == 1 else 2)  # the last line alone comes back as it was
    assert "FINISHED" in said[0]
    tracked = connect(store).get_run(run.run_id)
    assert (tracked.info.status, tracked.info.end_time) == (ended.status, ended.end_time)
    assert [m.step for m in connect(store).get_metric_history(run.run_id, "loss")] == [1, 2, 3]
    assert read_run(run.journal).status == "FINISHED"
    assert sync(tmp_path, store) == []


def test_lines_written_after_the_cut_reach_mlflow(tmp_path, new_store):
    """The file is longer again than the position says, but what it says of its middle is no longer true."""
    store = new_store("here")
    run = record(tmp_path / "r", store)
    kept = run.journal.read_bytes().splitlines(keepends=True)[:-2]
    run.journal.write_bytes(b"".join(kept))
    with amend_run(tmp_path / "r", None) as later:
        for step in range(20):
            later.log_metrics({"mae": 0.5}, step)
    sync(tmp_path, store)
    assert len(connect(store).get_metric_history(run.run_id, "mae")) == 20


@pytest.mark.parametrize("position", [1, 300, -3])
def test_a_flipped_byte_in_an_old_journal_does_not_stop_a_training(tmp_path, new_store, capsys, position):
    store = new_store("here")
    old = record(tmp_path / "r", store)
    damaged = bytearray(old.journal.read_bytes())
    damaged[position] = 0xFF
    old.journal.write_bytes(damaged)
    new = record(tmp_path / "r", store)
    said = capsys.readouterr().err
    assert str(old.journal) in said
    assert "remove that line; or move the file" in said
    assert connect(store).get_run(new.run_id).info.status == "FINISHED"
    with amend_run(tmp_path / "r", store, old.key):  # nor the evaluation of the old network
        pass


def test_a_damaged_position_is_named(tmp_path, new_store):
    store = new_store("here")
    run = record(tmp_path / "r", store)
    position_file(run.journal).write_text('{"offset": "many"}')
    [line] = sync(tmp_path, store)
    assert "not synced" in line
    assert position_file(run.journal).name in line


def test_a_clock_that_goes_back_changes_no_order(tmp_path, monkeypatch):
    monkeypatch.setattr("lanline.tracking.journal.events.now", lambda: 1_700_003_600_000)
    first = record(tmp_path, None)
    monkeypatch.setattr("lanline.tracking.journal.events.now", lambda: 1_700_000_000_000)
    second, third = record(tmp_path, None), record(tmp_path, None)
    assert [path.stem for path in journals(tmp_path)] == [first.key, second.key, third.key]
    assert read_run(third.journal).supersedes == second.key
    assert new_key(first.key) > first.key
    assert new_key("of-another-form") > "of-another-form"


def test_later_results_go_to_the_run_that_is_named(tmp_path):
    first, second = record(tmp_path, None), record(tmp_path, None)
    with amend_run(tmp_path, None, first.key) as run:
        run.log_metrics({"mae": 0.1})
    assert "mae" in read_run(first.journal).metrics
    assert "mae" not in read_run(second.journal).metrics
    with pytest.raises(UserError, match="run nothing was not recorded"):
        amend_run(tmp_path, None, "nothing")
