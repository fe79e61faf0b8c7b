"""Parts of shards: what training and validation read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lanline.errors import UserError, reason

ITEM_BYTES = 4  # of a float32


def read_rows(path: Path, names: Sequence[str], start: int, stop: int) -> list[np.ndarray]:
    """Rows ``start`` to ``stop`` of some float32 arrays.

    The library maps files into memory, and the system reads megabytes around each page that is looked at: where memory
    is short, pieces in random order would cost many times their size.

    Raises:
        UserError: the file is missing, truncated or no shard, or the arrays are not float32 or have fewer rows.
    """
    try:
        with Path(path).open("rb", buffering=0) as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(size))
            return [_read_array(handle, 8 + size, header[name], start, stop) for name in names]
    except (OSError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} cannot be read as a shard: {reason(error)}") from None


def _read_array(handle: FileIO, first: int, described: dict[str, Any], start: int, stop: int) -> np.ndarray:
    """Rows of an array as the header describes it; ``first`` is where the arrays begin."""
    n, *width = described["shape"]
    if described["dtype"] != "F32" or not 0 <= start <= stop <= n:
        raise ValueError(f"expected rows {start} to {stop} of float32, found {n} rows of {described['dtype']}")
    array = np.empty((stop - start, *width), "<f4")
    handle.seek(first + described["data_offsets"][0] + ITEM_BYTES * math.prod(width) * start)
    left = array.reshape(-1).view(np.uint8).data
    # In one read: smaller ones in a row look to the system like the beginning of the whole file, which it reads ahead.
    while left:  # a file system may give less at once than it was asked for
        if not (got := handle.readinto(left)):
            raise ValueError("it ends in the middle of an array")
        left = left[got:]
    return array


def open_shard(path: Path) -> safe_open:
    """The open file, for names, shapes and types of its arrays; `read_rows` reads parts of these.

    Raises:
        UserError: the file is missing or truncated.
    """
    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as a shard: {error}") from None
