"""What many shards and jobs cost the head of a workflow.

    python benchmarks/cluster.py plan [--shards 100 1000 5000] [--per-job 1 10 100]
    python benchmarks/cluster.py records [--shards 10000]
    python benchmarks/cluster.py submit [--jobs 300]
    python benchmarks/cluster.py overhead [--repeats 3]

`plan` times `snakemake -n` with 10 trainings beside a Snakefile of empty rules that has as many jobs and files: what
Snakemake itself takes. `records` times record_lineage and validate_training_data beside reading and hashing the files.
`submit` needs SLURM: it submits jobs that wait (sbatch --hold), counts them, and cancels them.
`overhead` needs no SLURM: it runs the command that the executor hands to sbatch for a job whose script does nothing,
with stand-ins for SLURM's commands, beside a Python that does nothing and one that imports Snakemake.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from lanline.cluster.folder import cancel_orphans, jobs_of
from lanline.config import Config, parse_config
from lanline.dataset.generate import write_shards
from lanline.files import sha256_file
from lanline.paths import Paths
from lanline.stages.open_experiments import ExperimentsRequest, open_experiments
from lanline.stages.record_lineage import LineageRequest, record_lineage
from lanline.stages.validate_training_data import ValidationRequest, validate_training_data

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "rules", "scripts", "config", "envs", "docs", "profiles")
SEEDS = [1, 2, 3, 4, 5]  # in two frameworks
EMPTY = """
rule all:
    input: [f"trained-{{i}}" for i in range({trainings})]
rule shard:
    output: "shard-{{i}}", "record-{{i}}"
    script: "empty.py"
rule record:
    input: [f"record-{{i:05d}}" for i in range({shards})]
    output: "recorded"
    script: "empty.py"
rule validate:
    input: "recorded", [f"shard-{{i:05d}}" for i in range({shards})]
    output: "validated"
    script: "empty.py"
rule train:
    input: "validated", [f"shard-{{i:05d}}" for i in range({shards})]
    output: "trained-{{i}}"
    script: "empty.py"
"""

# In a folder at the head of PATH, under the name of each of SLURM's commands that the executor calls.
STAND_IN = """#!/bin/sh
folder=$(dirname "$0")
case $(basename "$0") in
sbatch)
    for last; do :; done
    printf '%s\\n' "${last#--wrap=}" >"$folder/new" && mv "$folder/new" "$folder/job"
    echo 1 ;;
srun)
    while [ "${1#-}" != "$1" ]; do shift; done
    exec "$@" ;;
esac
"""
TRIVIAL = "from pathlib import Path\nfor name in snakemake.output:\n    Path(name).touch()\n"


def snakemake(folder: Path, *arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of a Snakemake that must succeed."""
    return run([sys.executable, "-m", "snakemake", "--quiet", "all", *arguments], folder)


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command that must succeed, its children included."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, cpu


def workspace(folder: Path) -> Path:
    """The workflow's files in an empty folder."""
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    return folder


def plan(shards: list[int], per_job: list[int]) -> None:
    print("shards  a job     wall s    CPU s   Snakemake's own CPU s   ratio")
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as bare:
        folder, empty = workspace(Path(name)), Path(bare)
        (empty / "empty.py").write_text("")
        for count in shards:
            (empty / "Snakefile").write_text(EMPTY.format(shards=count, trainings=2 * len(SEEDS)))
            _, floor = snakemake(empty, "-n", "--cores", "1")
            for group in per_job:
                data = f"data: {{shards: {count}, shards_per_job: {group}}}"
                (folder / "many.yaml").write_text(f"{data}\ntraining: {{seeds: {SEEDS}}}\n")
                wall, cpu = snakemake(folder, "-n", "--cores", "1", "--configfile", "config/quick.yaml", "many.yaml")
                print(f"{count:6}  {group:5}  {wall:9.1f}  {cpu:7.1f}  {floor:20.1f}  {cpu / floor:8.2f}", flush=True)


def records(shards: int) -> None:
    values = {"shards": shards, "thetas_per_shard": 16, "rows_per_theta": 10}
    config = parse_config({"name": "many", "models": ["ddm"], "data": values})
    with tempfile.TemporaryDirectory() as name, chdir(name):
        paths = Paths(config.name)
        write_shards(config, "ddm", paths.data_folder("ddm"), range(shards), cores=1)
        print(f"{shards} shards of {config.data.rows_per_shard} rows; CPU seconds, and wall seconds with 2 threads")
        begin = time.process_time()
        for path in sorted(paths.data_folder("ddm").iterdir()):
            sha256_file(path)
        floor = time.process_time() - begin
        print(f"  reading and hashing every file  {floor:6.2f}")
        for what, function in (("record_lineage", _record), ("validate", _validate)):
            begin, wall = time.process_time(), time.perf_counter()
            function(config, paths)
            cpu = time.process_time() - begin
            print(f"  {what:30}  {cpu:6.2f}  {time.perf_counter() - wall:6.2f}  ratio {cpu / floor:.1f}")


def _record(config: Config, paths: Paths) -> None:
    experiments = open_experiments(ExperimentsRequest(config, "ddm", paths))
    record_lineage(LineageRequest(config, "ddm", paths, experiments.data_generation.name))


def _validate(config: Config, paths: Paths) -> None:
    validate_training_data(ValidationRequest(config, "ddm", paths, threads=2))


def submit(jobs: int) -> None:
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = workspace(Path(name))
        (folder / "many.yaml").write_text(f"data: {{shards: {jobs}}}\n")
        begin = time.perf_counter()
        for _ in range(20):
            hold = ["sbatch", "--hold", "--comment=rule_nothing", "--output=/dev/null", "--wrap=true"]
            subprocess.run(hold, cwd=folder, check=True, capture_output=True)
        alone = (time.perf_counter() - begin) / 20
        cancel_orphans(folder)
        options = ["--jobs", str(jobs), "--set-resources", "generate_shards:slurm_extra='--hold'"]
        command = [sys.executable, "-m", "snakemake", "shards", "--profile", "profiles/slurm", *options]
        with (folder / "log").open("w") as log:
            files = ["--configfile", "config/quick.yaml", "many.yaml"]
            head = subprocess.Popen([*command, *files], cwd=folder, stdout=log, stderr=log)
        begin, first = time.perf_counter(), 0.0
        while (queued := len(jobs_of(folder))) < jobs and head.poll() is None:
            first = first or (time.perf_counter() - begin if queued else 0.0)
            time.sleep(0.5)
        seconds = time.perf_counter() - begin
        used = Path(f"/proc/{head.pid}/stat").read_text().rpartition(") ")[2].split()
        cpu = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
        head.send_signal(signal.SIGINT)
        head.wait()
        print(f"{queued} jobs wait after {seconds:.1f} s, the first after {first:.1f} s; the head used {cpu:.1f} CPU s")
        each = (seconds - first) / jobs
        print(f"a job took {each * 1e3:.0f} ms, sbatch alone {alone * 1e3:.0f} ms: ratio {each / alone:.1f}")


def overhead(repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as commands:
        folder = workspace(Path(name))
        for script in (folder / "scripts").glob("*.py"):
            script.write_text(TRIVIAL)
        for command in ("sbatch", "srun", "squeue", "scancel", "sinfo", "sacct", "sacctmgr", "sshare"):
            (Path(commands) / command).write_text(STAND_IN)
            (Path(commands) / command).chmod(0o755)
        os.environ["PATH"] = f"{commands}:{os.environ['PATH']}"
        print(f"medians of {repeats:2}                       CPU s  wall s")
        for code in ("pass", "import snakemake.cli"):
            _print_medians(f"python -c '{code}'", [sys.executable, "-c", code], folder, repeats)
        with _submitted(folder, Path(commands) / "job") as job:
            _print_medians("the job", ["sh", str(job)], folder, repeats)
        if not list(folder.glob("results/*/ddm/data/*.safetensors")):
            raise SystemExit("the job made no shard")


def _print_medians(what: str, command: list[str], folder: Path, repeats: int) -> None:
    wall, cpu = map(statistics.median, zip(*(run(command, folder) for _ in range(repeats)), strict=True))
    print(f"{what:34} {cpu:5.2f}  {wall:6.2f}", flush=True)


@contextmanager
def _submitted(folder: Path, job: Path) -> Iterator[Path]:
    """What the executor hands to sbatch for the first job. Its head stands still meanwhile: the job needs its files."""
    options = ["--profile", "profiles/slurm", "--jobs", "1", "--configfile", "config/quick.yaml"]
    command = [sys.executable, "-m", "snakemake", "shards", *options]
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    while not job.exists() and head.poll() is None:
        time.sleep(0.1)
    if not job.exists():
        raise SystemExit((folder / "log").read_text()[-2000:])
    head.send_signal(signal.SIGSTOP)
    try:
        yield job
    finally:
        head.kill()
        head.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("plan")
    command.add_argument("--shards", type=int, nargs="+", default=[100, 1000, 5000])
    command.add_argument("--per-job", type=int, nargs="+", default=[1, 10, 100])
    command = commands.add_parser("records")
    command.add_argument("--shards", type=int, default=10_000)
    command = commands.add_parser("submit")
    command.add_argument("--jobs", type=int, default=300)
    command = commands.add_parser("overhead")
    command.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.command == "plan":
        plan(args.shards, args.per_job)
    elif args.command == "records":
        records(args.shards)
    elif args.command == "submit":
        submit(args.jobs)
    else:
        overhead(args.repeats)


if __name__ == "__main__":
    main()
