"""Peak memory of making and of checking one shard, by the number of its rows: it should not grow with them.

    python benchmarks/shards.py [--rows 2000000 20000000] [--folder /tmp]

Each shard is of ddm with 1,000 rows a theta, made by `generate_shard` and compared by `validate_dataset` in a process
of its own. The last column is the size of the file: what a shard would need at least if it were held in memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from lanline.config import Config, parse_config
from lanline.dataset.generate import generate_shard
from lanline.dataset.inventory import build_inventory
from lanline.dataset.validation import validate_dataset

ROWS_PER_THETA = 1000


def config_of(rows: int) -> Config:
    data = {"thetas_per_shard": rows // ROWS_PER_THETA, "rows_per_theta": ROWS_PER_THETA}
    return parse_config({"name": "shards", "models": ["ddm"], "data": data})


def make(rows: int, folder: Path) -> None:
    generate_shard(config_of(rows), "ddm", 0, folder / "shard-00000.safetensors").write(folder / "shard-00000.json")


def check(rows: int, folder: Path) -> None:
    from lanline.sidecars import ShardSidecar

    inventory = build_inventory([ShardSidecar.read(folder / "shard-00000.json")])
    report = validate_dataset(folder, inventory, "benchmark", config_of(rows))
    assert not report.problems, report.problems


def _run(step: Callable[[int, Path], None], rows: int, folder: Path, answer: Connection) -> None:
    start = time.process_time()
    step(rows, folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    answer.send((usage.ru_maxrss / 1024, time.process_time() - start))


def measure(step: Callable[[int, Path], None], rows: int, folder: Path) -> tuple[float, float]:
    """Peak resident memory in MB and CPU-seconds of one step in a fresh process."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_run, args=(step, rows, folder, there))
    process.start()
    there.close()
    result = here.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[200_000, 2_000_000, 20_000_000])
    parser.add_argument("--folder", type=Path, help="for the files, which are removed again")
    arguments = parser.parse_args()
    print("      rows  make: peak MB  CPU s  check: peak MB  CPU s  file MB")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            made = measure(make, rows, Path(folder))
            checked = measure(check, rows, Path(folder))
            size = (Path(folder) / "shard-00000.safetensors").stat().st_size / 1e6
            print(
                f"{rows:10,}  {made[0]:13.0f}  {made[1]:5.1f}  {checked[0]:14.0f}  {checked[1]:5.1f}  {size:7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
