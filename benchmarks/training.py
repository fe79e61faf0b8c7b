"""Both trainers of lanline and both of LANfactory on the same files: speed, start-up, memory, and the error reached.

    python benchmarks/training.py [--data FOLDER] [--rows-millions 6] [--batch-sizes 1000 4096] [--epochs 2]
        [--threads 2] [--buffer-gb 2.0] [--no-peer]

Makes training data of the ddm in FOLDER unless they are there (and LANfactory's copy of them, and a virtual environment
for it), then runs each trainer in a process of its own. Start-up is the time from the command to the first step; a
trainer's time holds reading and shuffling. The limit is the time of the network's matrix products alone, with all
threads. The last lines give lanline as many epochs as fit into the peer's wall time.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lanline.config import parse_config

ROWS_PER_SHARD = 500_000
LABEL_FLOOR = math.log(1e-7)  # LANfactory's; here for both, so that errors can be compared
PEER_CONFIG = """\
NETWORK_TYPE: lan
CPU_BATCH_SIZE: {batch_size}
GPU_BATCH_SIZE: {batch_size}
GENERATOR_APPROACH: lan
OPTIMIZER_: adam
N_EPOCHS: {epochs}
MODEL: ddm
TRAINING_DATA_FOLDER: not used
SHUFFLE: true
LAYER_SIZES: [[100, 100, 100, 1]]
ACTIVATIONS: [[tanh, tanh, tanh]]
WEIGHT_DECAY: 0.0
TRAIN_VAL_SPLIT: 0.98
N_TRAINING_FILES: 10000
LABELS_LOWER_BOUND: np.log(1e-7)
LEARNING_RATE: 0.001
LR_SCHEDULER: reduce_on_plateau
LR_SCHEDULER_PARAMS: {{factor: 0.1, patience: 2, threshold: 0.001, min_lr: 0.00000001, verbose: true}}
"""


def make_data(folder: Path, shards: int, model: str = "ddm", rows_per_theta: int = 100) -> list[Path]:
    """Shards of 500,000 rows of a model; those that are there are kept."""
    from lanline.dataset.generate import generate_shard

    data = {"rows_per_theta": rows_per_theta, "thetas_per_shard": ROWS_PER_SHARD // rows_per_theta}
    values = {"name": "benchmark", "models": [model], "networks": [{"name": "lan"}], "data": data}
    config = parse_config(values)
    paths = [folder / f"shard-{i:05d}.safetensors" for i in range(shards)]
    for i, path in enumerate(paths):
        if not path.exists():
            generate_shard(config, model, i, path)
    return paths


def train_once(started: float, files: list[str], framework: str, threads: int, settings: dict) -> None:
    """Train in this process and print its figures as JSON. ``started`` is when the command was given."""
    from lanline.config import Network, Training
    from lanline.models import get_model
    from lanline.networks.specification import make_spec
    from lanline.training.job import Job
    from lanline.training.loop import train

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
                "training_s": trained.timings["training"],
                "processor_s": usage.ru_utime + usage.ru_stime,
                "peak_mb": usage.ru_maxrss / 1024,
                "validation_loss": trained.history[-1]["validation_loss"],
                "validation_mae": trained.history[-1]["validation_mae"],
            }
        )
    )


def limit_ms(threads: int, rows: int = 1000) -> float:
    """Milliseconds for the products of 3 x 100 units over 1000 rows, forward and backward, rows shared by threads."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    shapes = [(6, 100), (100, 100), (100, 100), (100, 1)]
    share = rows // threads

    def steps(n: int) -> None:
        torch.set_num_threads(1)
        layers = [(torch.randn(i, o), torch.randn(i, share), torch.randn(o, share)) for i, o in shapes]
        for _ in range(n):
            for number, (weight, x, g) in enumerate(layers):
                torch.mm(weight.t(), x)
                torch.mm(x, g.t())
                if number:
                    torch.mm(weight, g)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(steps, [200] * threads))
        began = time.perf_counter()
        list(pool.map(steps, [2000] * threads))
        return (time.perf_counter() - began) / 2000 * 1e3 * (1000 / rows)


def peer_python(folder: Path) -> Path:
    """The interpreter of a virtual environment with LANfactory; installed there the first time."""
    python = folder / "lanfactory" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "lanfactory"], check=True)
        pinned = (Path(__file__).parents[1] / "envs" / "constraints.txt").read_text().splitlines()
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(line for line in pinned if not line.startswith("pandas")))
        # Its torch trainer writes into a DataFrame's values, which pandas 3 refuses.
        peer = ["lanfactory>=0.7,<0.8", "pandas<3"]
        install = [python, "-m", "pip", "install", "--quiet", "-c", constraints, *peer]
        subprocess.run(install, check=True)
    return python


def pickles(files: list[str]) -> list[str]:
    """LANfactory's copies of the shards, beside them."""
    from safetensors.numpy import load_file

    paths = [Path(file).with_suffix(".pickle") for file in files]
    for file, path in zip(files, paths, strict=True):
        if not path.exists():
            path.write_bytes(pickle.dumps(load_file(file), protocol=5))
    return [str(path) for path in paths]


def run(command: list[str | Path], child: dict) -> dict[str, float]:
    """Figures that a trainer in a process of its own prints as its last line."""
    done = subprocess.run(
        [*command, json.dumps({"started": time.time(), **child})], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, figures: dict[str, float], threads: int) -> None:
    limit = limit_ms(threads)  # now: the cores are faster in some minutes than in others
    line = "  ".join(f"{key} {value:,.4g}" for key, value in figures.items())
    print(f"{name}  {figures['wall_ms_per_1000_rows'] / limit:.1f} x limit ({limit:.2f} ms)  {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lanline-benchmark")
    parser.add_argument("--rows-millions", type=float, default=6.0)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1000, 4096])
    parser.add_argument("--epochs", type=int, default=2, help="at least 2 for LANfactory's jaxtrain")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--buffer-gb", type=float, default=2.0)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        train_once(**json.loads(arguments.child))
        return
    shards = 1 + round(arguments.rows_millions * 1e6 / ROWS_PER_SHARD)
    files = [str(path) for path in make_data(arguments.data, shards)]

    def lanline(framework: str, batch_size: int, epochs: int) -> dict[str, float]:
        settings = {
            "epochs": epochs,
            "batch_size": batch_size,
            "buffer_gb": arguments.buffer_gb,
            "label_floor": LABEL_FLOOR,
        }
        child = {"files": files, "framework": framework, "threads": arguments.threads, "settings": settings}
        return run([sys.executable, __file__, "--child"], child)

    own: dict[str, dict[str, float]] = {}
    for batch_size in arguments.batch_sizes:
        for framework in ("torch", "jax"):
            own[framework] = lanline(framework, batch_size, arguments.epochs)
            show(f"{framework:5s} batch {batch_size:6d}", own[framework], arguments.threads)
    if arguments.no_peer:
        return
    python, copies = peer_python(arguments.data), pickles(files)
    config = arguments.data / "lanfactory.yaml"
    config.write_text(PEER_CONFIG.format(batch_size=arguments.batch_sizes[0], epochs=arguments.epochs))
    for framework in ("torch", "jax"):
        peer_script = Path(__file__).with_name("peer_training.py")
        peer = run([python, peer_script], {"framework": framework, "config": str(config), "files": copies})
        show(f"LANfactory {framework:5s}", peer, arguments.threads)
        ours = lanline(framework, arguments.batch_sizes[0], arguments.epochs)
        print(f"  lanline is {peer['wall_ms_per_1000_rows'] / ours['wall_ms_per_1000_rows']:.1f} times as fast")
        epoch_s = ours["training_s"] / arguments.epochs
        epochs = int((peer["start_up_s"] + peer["training_s"] - ours["start_up_s"]) / epoch_s)
        if epochs > arguments.epochs:
            ours = lanline(framework, arguments.batch_sizes[0], epochs)
        print(
            f"  after {peer['start_up_s'] + peer['training_s']:.0f} s: MAE {peer['validation_mae']:.3f} (LANfactory), "
            f"after {ours['start_up_s'] + ours['training_s']:.0f} s: {ours['validation_mae']:.3f} (lanline)"
        )


if __name__ == "__main__":
    main()
