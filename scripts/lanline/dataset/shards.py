"""One shard of training data: a safetensors file of float32 arrays with its origin in the header.

It loads without copying and executes nothing. Arrays are named by network type: ``lan_data`` (n, P + 2) holds theta,
rt and choice; ``lan_labels`` (n,) the log-likelihood.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lanline.errors import UserError
from lanline.files import atomic_path

FORMAT_VERSION = 1
HEADER = "lanline"


def write_shard(path: Path, arrays: dict[str, np.ndarray], origin: dict[str, Any]) -> None:
    """Write a shard atomically.

    Args:
        path: file to write.
        arrays: float32 arrays with the same number of rows.
        origin: what the arrays were made from, as plain JSON (model, bounds, engine, seed, settings).
    """
    # One key only: safetensors writes several in random order, and the same data must give the same bytes.
    header = json.dumps({"format_version": FORMAT_VERSION, "origin": origin}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={HEADER: header})


def read_shard(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Arrays of a shard by name.

    Raises:
        UserError: the file is missing, truncated, of another format, or lacks one of the arrays.
    """
    with _opened(path) as shard:
        missing = set(names) - set(shard.keys())
        if missing:
            raise UserError(f"{path} has no array {', '.join(sorted(missing))}; it has {', '.join(shard.keys())}")
        return {name: shard.get_tensor(name) for name in names}


def read_origin(path: Path) -> dict[str, Any]:
    """What a shard was made from. Raises UserError as `read_shard` does."""
    with _opened(path) as shard:
        text = (shard.metadata() or {}).get(HEADER)
    if text is None:
        raise UserError(f"{path} was not written by lanline: its header has no '{HEADER}'")
    header = json.loads(text)
    if header["format_version"] != FORMAT_VERSION:
        raise UserError(f"{path}: format version {header['format_version']}, this lanline reads {FORMAT_VERSION}")
    return header["origin"]


def _opened(path: Path):
    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as a shard: {error}") from None
