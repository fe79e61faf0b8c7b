"""Speed, start-up, memory and loss of both trainers on the same files.

    python benchmarks/training.py [--data FOLDER] [--rows-millions 6] [--batch-sizes 1000 4096] [--epochs 1]
        [--threads 2] [--buffer-gb 2.0]

Makes training data of the ddm in FOLDER unless they are there, then runs each trainer in a process of its own. Start-up
is the time from the command to the first step. Processor seconds are those of all threads: on a busy machine they say
more than the wall clock, and divided by the threads they are what the wall clock would show on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lanline.config import parse_config

ROWS_PER_SHARD = 500_000


def make_data(folder: Path, shards: int) -> list[Path]:
    """Shards of the ddm's default training data; those that are there are kept."""
    from lanline.dataset.generate import generate_shard

    config = parse_config({"name": "benchmark", "models": ["ddm"], "networks": [{"name": "lan"}]})
    paths = [folder / f"shard-{i:05d}.safetensors" for i in range(shards)]
    for i, path in enumerate(paths):
        if not path.exists():
            generate_shard(config, "ddm", i, path)
    return paths


def train_once(started: float, files: list[str], framework: str, threads: int, settings: dict) -> None:
    """Train in this process and print its figures as JSON. ``started`` is when the command was given."""
    from lanline.config import Network, Training
    from lanline.models import get_model
    from lanline.networks.specification import make_spec
    from lanline.training.loop import Job, train

    spec = make_spec(Network(name="lan"), get_model("ddm"))
    job = Job(spec, Training(**settings), framework, 1, files[1:], files[:1], "benchmark", threads)
    imported = time.time()
    trained = train(job, None, lambda metrics, step: None, lambda line: print(line, file=sys.stderr))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = ROWS_PER_SHARD * (len(files) - 1) * settings["epochs"]
    print(
        json.dumps(
            {
                "start_up_s": imported - started + trained.timings["start_up"],
                "wall_ms_per_1000_rows": trained.timings["training"] / rows * 1e6,
                "rows_per_s": rows / trained.timings["training"],
                "processor_s": usage.ru_utime + usage.ru_stime,
                "peak_mb": usage.ru_maxrss / 1024,
                "validation_loss": trained.history[-1]["validation_loss"],
                "validation_mae": trained.history[-1]["validation_mae"],
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lanline-benchmark")
    parser.add_argument("--rows-millions", type=float, default=6.0)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1000, 4096])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--buffer-gb", type=float, default=2.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        train_once(**json.loads(arguments.child))
        return
    shards = 1 + round(arguments.rows_millions * 1e6 / ROWS_PER_SHARD)
    files = [str(path) for path in make_data(arguments.data, shards)]
    for batch_size in arguments.batch_sizes:
        for framework in ("torch", "jax"):
            settings = {"epochs": arguments.epochs, "batch_size": batch_size, "buffer_gb": arguments.buffer_gb}
            child = {
                "started": time.time(),
                "files": files,
                "framework": framework,
                "threads": arguments.threads,
                "settings": settings,
            }
            command = [sys.executable, __file__, "--child", json.dumps(child)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(done.stdout)
            line = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())
            print(f"{framework:5s}  batch {batch_size:6d}  {line}", flush=True)


if __name__ == "__main__":
    main()
