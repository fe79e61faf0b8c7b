"""Figures of the tracking layer: writers of one SQLite store, runs per second, and what tracking adds to a
training.

    python benchmarks/tracking.py writers [--processes 64] [--runs 10]
    python benchmarks/tracking.py overhead [--seconds 60] [--repeats 3] [--threads 1]

`overhead` trains a network of 3 x 100 tanh in PyTorch with a fixed number of steps, without tracking and
with it. CPU seconds are those of the training's process, and of the process beside it that brings the record
to MLflow; on a busy machine they say more than the wall clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lanline.tracking.journal.events import journals
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import is_complete
from lanline.tracking.mlflow.store import connect, create_experiments, resolve_store


def write_runs(folder: Path, uri: str, process: int, runs: int) -> None:
    store = resolve_store(uri)
    for number in range(runs):
        name = f"p{process}-r{number}"
        with open_run(folder / name, name, "many", store=store, params={f"p{i}": i for i in range(20)}) as run:
            for step in range(50):
                run.log_metrics({"loss": step}, step)


def write_plain_runs(folder: Path, uri: str, process: int, runs: int) -> None:
    """The same runs by MLflow's own client."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("many")
    for number in range(runs):
        with mlflow.start_run(run_name=f"p{process}-r{number}"):
            mlflow.log_params({f"p{i}": i for i in range(20)})
            for step in range(50):
                mlflow.log_metric("loss", step, step)


def writers(processes: int, runs: int) -> None:
    """``processes`` writers that start at once on a store that does not exist yet."""
    import mlflow  # noqa: F401  once, here: 64 imports would measure the import

    print(f"{processes} processes x {runs} runs on a fresh SQLite store")
    for name, target in (("lanline", write_runs), ("MLflow's client", write_plain_runs)):
        run_writers(name, target, processes, runs)


def run_writers(name: str, target: Callable[[Path, str, int, int], None], processes: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        context = multiprocessing.get_context("fork")
        jobs = [context.Process(target=target, args=(Path(folder), uri, i, runs)) for i in range(processes)]
        begin = time.perf_counter()
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        seconds = time.perf_counter() - begin
        failed = sum(job.exitcode != 0 for job in jobs)
        client = connect(resolve_store(uri))
        experiment = client.get_experiment_by_name("many").experiment_id
        found = client.search_runs([experiment], "attributes.status = 'FINISHED'", max_results=50_000)
        names = {run.info.run_name for run in found if run.data.metrics and len(run.data.params) == 20}
        print(
            f"{name:15}  {len(names)} of {processes * runs} runs complete, {len(found) - len(names)} doubled, "
            f"{failed} processes failed; {seconds:.0f} s, {len(found) / seconds:.1f} runs/s"
        )


def train(how: str, steps: int, threads: int, folder: Path) -> tuple[float, float, float]:
    """A training of ``steps`` batches of 1000, in 20 epochs, start and end of tracking included.

    Gives seconds on the wall, CPU seconds of this process, and CPU seconds of the process beside it.
    """
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(threads)
    layers = [torch.nn.Linear(6, 100), torch.nn.Tanh()]
    for _ in range(2):
        layers += [torch.nn.Linear(100, 100), torch.nn.Tanh()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(100, 1))
    optimizer = torch.optim.Adam(network.parameters())
    x, y = torch.randn(1000, 6), torch.randn(1000, 1)

    def epochs(run=None) -> None:
        for epoch in range(20):
            for _ in range(steps // 20):
                optimizer.zero_grad()
                loss = torch.nn.functional.huber_loss(network(x), y)
                loss.backward()
                optimizer.step()
            if run:
                run.log_metrics({"loss": loss.item()}, epoch)

    begin, cpu = time.perf_counter(), time.process_time()
    if how == "off":
        epochs()
    else:
        store = resolve_store(f"sqlite:///{folder}/mlflow.db")
        with open_run(folder / "report", "n", "e", store=store, follow=True) as run:
            epochs(run)
        assert is_complete(journals(folder / "report")[-1])
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begin, time.process_time() - cpu, beside.ru_utime + beside.ru_stime


def overhead(seconds: float, repeats: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        create_experiments(resolve_store(f"sqlite:///{folder}/mlflow.db"), ["e"])
        per_step = _child("off", 1000, threads, Path(folder))[1] / 1000 / threads
        steps = int(seconds / per_step / 20) * 20
        print(f"{steps} steps, {per_step * 1e3:.2f} ms each, {threads} threads, {os.cpu_count()} cores")
        print("         wall s    CPU s  beside s")
        times: dict[str, list[tuple[float, float, float]]] = {"off": [], "tracked": []}
        for _ in range(repeats):  # in turn, such that a busy machine touches all alike
            for how, found in times.items():
                found.append(_child(how, steps, threads, Path(folder)))
                print(f"{how:8}" + "  ".join(f"{value:7.2f}" for value in found[-1]), flush=True)
        print("medians")
        base = [statistics.median(column) for column in zip(*times["off"], strict=True)]
        for how, found in times.items():
            wall, cpu, beside = (statistics.median(column) for column in zip(*found, strict=True))
            more = f"{100 * (wall / base[0] - 1):+5.1f} %"
            print(f"{how:8}{wall:7.2f}  {cpu:7.2f}  {beside:7.2f}   wall {more}")


def _child(how: str, steps: int, threads: int, folder: Path) -> tuple[float, float, float]:
    """A training in a process of its own, as a rule's job is."""
    command = [sys.executable, __file__, "train", how, str(steps), str(threads), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wall, cpu, beside = map(float, done.stdout.split()[-3:])
    return wall, cpu, beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("writers")
    command.add_argument("--processes", type=int, default=64)
    command.add_argument("--runs", type=int, default=10)
    command = commands.add_parser("overhead")
    command.add_argument("--seconds", type=float, default=60)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--threads", type=int, default=1)
    command = commands.add_parser("train")
    command.add_argument("how", choices=["off", "tracked"])
    command.add_argument("steps", type=int)
    command.add_argument("threads", type=int)
    command.add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "writers":
        writers(args.processes, args.runs)
    elif args.command == "overhead":
        overhead(args.seconds, args.repeats, args.threads)
    else:
        print(*train(args.how, args.steps, args.threads, args.folder))


if __name__ == "__main__":
    main()
