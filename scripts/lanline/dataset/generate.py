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
from lanline.files import sha256_file, sha256_json
from lanline.logs import say
from lanline.paths import Paths, record_file, shard_file, shard_label
from lanline.sidecars import ShardRecord
from lanline.versions import LABEL_LIBRARIES, library_versions


def generate_group(config: Config, model: str, shards: Sequence[int], paths: Paths, code: str, cores: int) -> None:
    """Make the shards of one job, each in a folder of unfinished work, and move them to their places at the end.

    A job that was killed left some of them there, and the next attempt makes the rest.

    Args:
        config: the run's configuration.
        model: name of the model.
        shards: their numbers.
        paths: of the run.
        code: fingerprint of the code that makes them; unfinished work of another code is not used.
        cores: shards that are made at once.
    """
    made_by = sha256_json([config.data_recipe(model), code, _versions()])[:16]
    unfinished = paths.unfinished(model) / made_by
    generate_shards(config, model, unfinished, [shard for shard in shards if not is_whole(unfinished, shard)], cores)
    for shard in shards:
        label = shard_label(shard)
        paths.data_folder(model).mkdir(parents=True, exist_ok=True)
        (unfinished / shard_file(shard)).replace(paths.shard(model, label))
        (unfinished / record_file(shard)).replace(paths.shard_record(model, label))


def generate_shards(config: Config, model: str, folder: Path, shards: Sequence[int], cores: int) -> None:
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
    return record.exists() and path.exists() and sha256_file(path) == ShardRecord.read(record).sha256


def _make_with_record(config: Config, model: str, folder: Path, shard: int) -> None:
    generate_shard(config, model, shard, folder / shard_file(shard)).write(folder / record_file(shard))


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
        versions=_versions(),
        host=socket.gethostname(),
        job_id=os.environ.get("SLURM_JOB_ID"),
    )


def _versions() -> dict[str, str]:
    return library_versions("lanline", *LABEL_LIBRARIES)
