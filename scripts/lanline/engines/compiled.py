"""numba's compiler, with a folder for compiled code where neither the library's nor the user's own can be written.

Without one numba refuses to compile functions that are to be kept, as in a read-only container without a home.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from numba import config, njit
from numba.misc.appdirs import user_cache_dir

from lanline.cached_facts import private_temporary_folder

__all__ = ["njit"]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _choose_folder() -> None:
    """The places that numba itself tries come first."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    if not any(map(_can_write, (Path(__file__).parent / "__pycache__", Path(user_cache_dir("numba"))))):
        with suppress(OSError):
            os.environ["NUMBA_CACHE_DIR"] = str(private_temporary_folder())
            config.reload_config()


_choose_folder()
