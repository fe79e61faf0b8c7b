"""One shard of training data: a safetensors file of float32 arrays with its origin in the header.

It loads without copying and executes nothing. Arrays are named by network type, as in ssm-simulators' files:
``lan_data`` (n, P + 2) holds theta, rt and choice; ``lan_labels`` (n,) the log-likelihood. ``cpn_data``, ``opn_data``
and ``gonogo_data`` (m, P) hold theta, their labels (m,) or (m, C) probabilities (`lanline.dataset.rows`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lanline.dataset.reading import ITEM_BYTES, open_shard
from lanline.errors import UserError
from lanline.files import atomic_path

FORMAT_VERSION = 2
READABLE = (1, 2)  # version 1 has the arrays of a lan only
HEADER = "lanline"


def write_shard(path: Path, arrays: dict[str, np.ndarray], origin: dict[str, Any]) -> None:
    """Write arrays of float32 as a shard; see `stream_shard`."""
    stream_shard(path, {name: array.shape for name, array in arrays.items()}, [arrays], origin)


def stream_shard(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    blocks: Iterable[dict[str, np.ndarray]],
    origin: dict[str, Any],
) -> None:
    """Write a shard atomically, block by block: only one block is in memory.

    Args:
        path: file to write.
        shapes: of the whole arrays, by name.
        blocks: the next rows of every array, again and again.
        origin: what the arrays were made from, as plain JSON (model, bounds, engine, seed, settings).

    Raises:
        ValueError: the blocks do not add up to the shapes.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, "origin": origin}, sort_keys=True)
    header: dict[str, Any] = {"__metadata__": {HEADER: text}}
    position: dict[str, int] = {}
    end = 0
    for name in sorted(shapes):
        position[name], start, end = end, end, end + ITEM_BYTES * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [start, end]}
    ends = {name: header[name]["data_offsets"][1] for name in shapes}
    # The format (https://github.com/huggingface/safetensors): length of the header, header, bytes of the arrays. The
    # library writes whole arrays only.
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        handle.write(len(encoded).to_bytes(8, "little") + encoded)
        for block in blocks:
            for name, rows in block.items():
                handle.seek(8 + len(encoded) + position[name])
                handle.write(np.ascontiguousarray(rows, "<f4").data)
                position[name] += ITEM_BYTES * rows.size
        if position != ends:
            raise ValueError(f"{path}: the blocks end at {position}, their arrays at {ends}")


def read_shard(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Arrays of a shard by name.

    Raises:
        UserError: the file is missing, truncated, of another format, or lacks one of the arrays.
    """
    with open_shard(path) as shard:
        missing = set(names) - set(shard.keys())
        if missing:
            raise UserError(f"{path} has no array {', '.join(sorted(missing))}; it has {', '.join(shard.keys())}")
        return {name: shard.get_tensor(name) for name in names}


def read_origin(path: Path) -> dict[str, Any]:
    """What a shard was made from. Raises UserError as `read_shard` does."""
    with open_shard(path) as shard:
        text = (shard.metadata() or {}).get(HEADER)
    if text is None:
        raise UserError(f"{path} was not written by lanline: its header has no '{HEADER}'")
    try:
        header = json.loads(text)
        version, origin = header["format_version"], header["origin"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: its header has no valid provenance: the file is damaged") from None
    if version not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise UserError(f"{path}: format version {version}, this lanline reads {readable}")
    if not isinstance(origin, dict) or "model" not in origin:
        raise UserError(f"{path}: its header does not name the model")
    return origin
