"""Make shards of training data and the records of where they came from."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from lanline.config import Config
from lanline.dataset.inventory import lineage_id
from lanline.dataset.rows import shard_blocks, shard_shapes
from lanline.dataset.shards import stream_shard
from lanline.engines import resolve_engine
from lanline.files import sha256_file
from lanline.logs import note
from lanline.paths import record_file, shard_file
from lanline.sidecars import ShardSidecar
from lanline.versions import LABEL_LIBRARIES, library_versions


def write_shards(config: Config, model: str, folder: Path, shards: Sequence[int], cores: int) -> None:
    """Write shards with these numbers and their records to ``folder``, ``cores`` of them at once."""
    make = partial(_make_with_record, config, model, folder)
    workers = min(cores, len(shards))
    if workers < 2:
        for shard in shards:
            make(shard)
        return
    # Spawned, not forked: threads of numerical libraries do not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(make, shards))


def is_whole(folder: Path, shard: int) -> bool:
    """Whether a shard lies in ``folder`` with its record, and has the bytes that the record says."""
    record, path = folder / record_file(shard), folder / shard_file(shard)
    return record.exists() and path.exists() and sha256_file(path) == ShardSidecar.read(record).sha256


def _make_with_record(config: Config, model: str, folder: Path, shard: int) -> None:
    generate_shard(config, model, shard, folder / shard_file(shard)).write(folder / record_file(shard))


def generate_shard(config: Config, model_name: str, shard: int, path: Path) -> ShardSidecar:
    """Write shard number ``shard`` of a model's training data to ``path``. Returns its record."""
    start = time.perf_counter()
    model = config.model(model_name)
    engine = resolve_engine(model, config.data)
    recipe = config.data_recipe(model_name)
    stream_shard(
        path,
        shard_shapes(model, config.data),
        shard_blocks(model, config.data, config.seed, shard),
        {**recipe, "params": model.params, "all_bounds": model.bounds, "used_engine": engine, "shard": shard},
    )
    seconds = time.perf_counter() - start
    rows = config.data.rows_per_shard
    note(f"{model_name} shard {shard + 1} of {config.data.shards}: {rows:,} rows from {engine}, {seconds:.1f} s")
    return ShardSidecar(
        file=path.name,
        model=model_name,
        shard=shard,
        rows=rows,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        seed=config.seed,
        lineage_id=lineage_id(recipe),
        engine=engine,
        seconds=round(seconds, 3),
        versions=making_versions(),
        host=socket.gethostname(),
        job_id=os.environ.get("SLURM_JOB_ID"),
    )


def making_versions() -> dict[str, str]:
    """Versions of the libraries that make shards."""
    return library_versions("lanline", *LABEL_LIBRARIES)
