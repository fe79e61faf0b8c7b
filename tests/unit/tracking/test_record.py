"""The fold that makes a run's state from the events of its journal, on a journal that an earlier lanline wrote."""

import math
from pathlib import Path

import pytest

from lanline.errors import UserError
from lanline.tracking.journal.events import journals, read_events, to_line
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.record import read_run
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import connect

KEY = "20261128T084522392-0bc5a16a40b7"
BEGUN = (
    '{"event": "start", "version": 1, "key": "20261128T084522392-0bc5a16a40b7", "name": "ddm-lan", "experiment": '
    '"ddm-training", "store": null, "time": 1795855522392, "identity": '
    '"6cb4bbfa99aa24f85e941ddf93e32dd48c5fd52589e86cc9a878a971b36ea092", "supersedes": null, "links": '
    '{"data_generation_run_id": "run:k0"}, "tags": {"host": "node1", "slurm_job_id": "3", "stage": "training"}}\n'
    '{"event": "params", "params": {"lr": "0.1"}}\n'
    '{"event": "metrics", "time": 1795855522394, "step": 1, "metrics": {"loss": 0.5, "bad": "nan", "worse": "inf"}}\n'
    '{"event": "end", "status": "FAILED", "reason": "Stop: out of paper", "time": 1795855522394}\n'
)
WHOLE = BEGUN + (
    '{"event": "resume", "time": 1795855522404, "after": "FAILED: Stop: out of paper", "times": 1, "host": "vm"}\n'
    '{"event": "tags", "tags": {"host": "node2", "slurm_job_id": "4", "stage": "training", "slurm_job_ids": "3, 4"}}\n'
    '{"event": "links", "links": {"data_generation_run_id": "run:k0"}}\n'
    '{"event": "metrics", "time": 1795855522405, "step": 2, "metrics": {"loss": 0.25}}\n'
    '{"event": "dataset", "name": "ddm-data", "digest": "abab", "source": "/data", "context": "training", '
    '"tags": {"digest": "ababab"}, "profile": {"rows": 10}}\n'
    '{"event": "artifact", "path": "../net.txt", "folder": "network", "bytes": 7, "sha256": '
    '"9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}\n'
    '{"event": "register", "name": "ddm-lan", "folder": "network", "tags": {"mae": "0.02"}}\n'
    '{"event": "end", "status": "FINISHED", "reason": "", "time": 1795855522405}\n'
)


def journal_of(folder: Path, text: str) -> Path:
    journal = folder / "journal" / f"{KEY}.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text(text)
    (folder / "net.txt").write_text("weights")
    return journal


def test_a_journal_of_an_earlier_lanline_is_folded_whole(tmp_path):
    run = read_run(journal_of(tmp_path, WHOLE))
    assert (run.key, run.name, run.experiment, run.store) == (KEY, "ddm-lan", "ddm-training", None)
    assert (run.status, run.start_time, run.end_time) == ("FINISHED", 1795855522392, 1795855522405)
    assert (run.params, run.links) == ({"lr": "0.1"}, {"data_generation_run_id": "run:k0"})
    assert run.metrics["loss"] == 0.25
    assert math.isnan(run.metrics["bad"])
    assert math.isinf(run.metrics["worse"])
    assert [(value.step, value.value) for value in run.history if value.name == "loss"] == [(1, 0.5), (2, 0.25)]
    assert (run.resumed, run.jobs) == (1, ("3", "4"))
    assert run.tags["resumed"] == "1 time(s), last after FAILED: Stop: out of paper"
    assert "reason" not in run.tags
    [dataset] = run.datasets
    assert (dataset.digest, dataset.source, dataset.profile) == ("abab", "/data", {"rows": 10})
    assert run.files["network/net.txt"].is_as_recorded()


def test_the_state_before_the_end_is_that_of_the_last_attempt(tmp_path):
    journal = journal_of(tmp_path, BEGUN)
    failed = read_run(journal)
    assert (failed.status, failed.tags["reason"]) == ("FAILED", "Stop: out of paper")
    with journal.open("a") as handle:
        handle.write(WHOLE.removeprefix(BEGUN).splitlines(keepends=True)[0])
    assert (read_run(journal).status, read_run(journal).end_time) == ("RUNNING", None)


def test_an_unfinished_run_of_an_earlier_lanline_is_resumed(tmp_path):
    journal = journal_of(tmp_path, BEGUN)
    with open_run(tmp_path, "ddm-lan", "ddm-training", params={"lr": 0.1}) as run:
        assert run.resumed
        assert run.last_step == 1
        run.log_metrics({"loss": 0.5}, 1)  # recorded before: not doubled
    assert journals(tmp_path) == [journal]
    assert [value.step for value in read_run(journal).history if value.name == "loss"] == [1]


def test_a_journal_of_an_earlier_lanline_is_synced(tmp_path, new_store):
    store = new_store("here")
    position = mirror(journal_of(tmp_path, WHOLE), store)
    tracked = connect(store).get_run(position.run_id)
    assert (tracked.info.status, tracked.data.metrics["loss"]) == ("FINISHED", 0.25)
    assert [item.path for item in connect(store).list_artifacts(position.run_id, "network")] == ["network/net.txt"]


def test_what_is_read_is_written_as_it_was(tmp_path):
    journal = journal_of(tmp_path, WHOLE)
    copy = tmp_path / "copy.jsonl"
    copy.write_text("".join(to_line(event) for event, _ in read_events(journal)))
    assert repr([event for event, _ in read_events(copy)]) == repr([event for event, _ in read_events(journal)])


def test_a_journal_of_a_later_lanline_is_refused(tmp_path):
    journal = journal_of(tmp_path, BEGUN.replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match="newer lanline"):
        read_run(journal)
