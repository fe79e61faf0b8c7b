"""One file that a killed training is resumed from.

The numbers of the state are safetensors arrays and the progress is JSON in the same file's header, so that
both are replaced at once.
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


def write_checkpoint(path: Path, key: str, arrays: dict[str, np.ndarray], progress: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to write.
        key: hash of everything that determines the training.
        arrays: the backend's state.
        progress: position and history, as plain JSON.

    Raises:
        UserError: it cannot be written; the one before it is still there.
    """
    header = {"format_version": str(FORMAT_VERSION), "key": key, "progress": json.dumps(progress)}
    try:
        with atomic_path(path) as temporary:
            save_file(arrays, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written ({error}); what was saved before it is kept") from None


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays and progress, or None if there is no checkpoint of this training.

    Raises:
        UserError: the file is there but broken.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if (header.get("format_version"), header.get("key")) != (str(FORMAT_VERSION), key):
                return None
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, json.loads(header["progress"])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a checkpoint ({error}); delete it to train from scratch") from None
