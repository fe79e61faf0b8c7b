"""Make one shard of training data and the record of where it came from."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from lanline.config import Config
from lanline.dataset.inventory import lineage_id
from lanline.dataset.rows import shard_blocks, shard_shapes
from lanline.dataset.shards import stream_shard
from lanline.engines import resolve_engine
from lanline.files import sha256_file
from lanline.logs import say
from lanline.sidecars import ShardRecord
from lanline.versions import library_versions


def generate_shard(config: Config, model_name: str, shard: int, path: Path) -> ShardRecord:
    """Write shard number ``shard`` of a model's training data to ``path`` and give its record."""
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
    say(f"{model_name} shard {shard + 1} of {config.data.shards}: {rows:,} rows from {engine}, {seconds:.1f} s")
    return ShardRecord(
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
        versions=library_versions("lanline", "numpy", "scipy", "numba", "ssm-simulators"),
        host=socket.gethostname(),
        job_id=os.environ.get("SLURM_JOB_ID"),
    )
