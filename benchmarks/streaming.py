"""A training on data three times as large as its job's memory: peak memory, and speed beside the same data in memory.

    python benchmarks/streaming.py [--data FOLDER] [--limit-mb 700] [--frameworks torch jax] [--threads 2]

Makes three times --limit-mb of rows in the format of benchmarks/training.py. One epoch in memory, one through a buffer
that fits beside the framework, inside a control group that ends the job at its limit and whose page cache cannot hold
the files (as root on Linux; elsewhere the peak is measured all the same, and the first line says so). Before each the
files are dropped from the page cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training import LABEL_FLOOR, ROWS_PER_SHARD, make_data, run

ROW_BYTES = 4 * 7  # of the ddm: four parameters, rt, choice, label
FRAMEWORK_MB = 420  # what a training takes beside its buffer; the in-memory run prints it


@contextmanager
def control_group(limit_mb: int) -> Iterator[Path | None]:
    """A control group with this limit of memory, or None where one cannot be made."""
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"lanline-{os.getpid()}"
        try:
            group.mkdir()
            (group / name).write_text(str(limit_mb * 2**20))
        except OSError:
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None


@contextmanager
def inside(group: Path | None) -> Iterator[None]:
    """Let this process, and what it starts, belong to a control group for a while."""
    if group is None:
        yield
        return
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))


def forget(files: list[str]) -> None:
    """Drop files from the page cache, where that can be asked for, so that they are read from the disk again."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        with Path(file).open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lanline-benchmark")
    parser.add_argument("--limit-mb", type=int, default=700)
    parser.add_argument("--frameworks", nargs="+", default=["torch", "jax"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    wanted = -(-3 * arguments.limit_mb * 2**20 // (ROW_BYTES * ROWS_PER_SHARD))
    files = [str(path) for path in make_data(arguments.data, 1 + wanted)]
    megabytes = wanted * ROWS_PER_SHARD * ROW_BYTES / 2**20
    with control_group(arguments.limit_mb) as group:
        enforced = "" if group else ", which nothing enforces here"
        print(f"{megabytes:,.0f} MB of rows; a job may have {arguments.limit_mb} MB{enforced}")
        for framework in arguments.frameworks:
            figures = []
            for buffer_mb, where in ((2 * megabytes, None), (arguments.limit_mb - FRAMEWORK_MB, group)):
                settings = {
                    "epochs": 1, "batch_size": 1000, "buffer_gb": buffer_mb * 2**20 / 1e9, "label_floor": LABEL_FLOOR
                }  # fmt: skip
                child = {"files": files, "framework": framework, "threads": arguments.threads, "settings": settings}
                forget(files)
                with inside(where):
                    figures.append(run([sys.executable, Path(__file__).with_name("training.py"), "--child"], child))
            memory, streamed = figures
            print(
                f"{framework:5s}  in memory {memory['rows_per_s']:,.0f} rows/s, peak {memory['peak_mb']:,.0f} MB; "
                f"streamed {streamed['rows_per_s']:,.0f} rows/s, peak {streamed['peak_mb']:,.0f} MB: "
                f"{streamed['rows_per_s'] / memory['rows_per_s']:.2f} times the speed"
            )


if __name__ == "__main__":
    main()
