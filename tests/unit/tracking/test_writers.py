"""Many writers of one fresh SQLite store: every run there, complete, once."""

import multiprocessing
from pathlib import Path

import pytest

from lanline.tracking.journal.events import Metrics, read_events
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.writer import Journal
from lanline.tracking.mlflow.store import connect, create_experiments, resolve_store

pytest.importorskip("mlflow")


def write_runs(folder: Path, uri: str, process: int, runs: int) -> None:
    store = resolve_store(uri)
    for number in range(runs):
        name = f"p{process}-r{number}"
        params = {f"p{i}": i for i in range(20)}
        with open_run(folder / name, name, "many", store=store, on_outage="fail", params=params) as run:
            for step in range(50):
                run.log_metrics({"loss": process + number / 100 + step}, step)


def assert_complete(uri: str, processes: int, runs: int) -> None:
    client = connect(resolve_store(uri))
    found = client.search_runs([client.get_experiment_by_name("many").experiment_id], max_results=5000)
    wanted = sorted(f"p{process}-r{number}" for process in range(processes) for number in range(runs))
    assert sorted(run.info.run_name for run in found) == wanted
    for run in found:
        process, number = (int(part[1:]) for part in run.info.run_name.split("-"))
        assert run.info.status == "FINISHED"
        assert len(run.data.params) == 20
        assert run.data.metrics == {"loss": process + number / 100 + 49}
    for run in found[:: max(1, len(found) // 20)]:
        assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == list(range(50))


def run_processes(target, arguments: list[tuple]) -> None:
    import mlflow  # noqa: F401  in the parent, once: importing it 64 times takes two minutes on two cores

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "runs"), [(64, 10)])
def test_many_writers_of_a_fresh_store_lose_nothing(tmp_path, processes, runs):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_processes(write_runs, [(tmp_path, uri, process, runs) for process in range(processes)])
    assert_complete(uri, processes, runs)


@pytest.mark.slow
def test_two_workflows_that_start_at_the_same_moment(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    store = resolve_store(uri)
    names = ["ddm-data-generation", "ddm-training"]
    run_processes(create_experiments, [(store, names)] * 4)
    assert len(create_experiments(store, names)) == 2


def append(path: Path, number: int) -> None:
    for step in range(200):
        try:
            with Journal(path) as journal:
                journal.append(Metrics(time=0, step=step, metrics={"number": number}))
        except BlockingIOError:
            continue


def test_a_journal_has_one_writer_at_a_time_and_whole_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    run_processes(append, [(path, number) for number in range(4)])
    assert all(event.event == "metrics" for event, _ in read_events(path))
