"""Facts that take seconds to determine, cached between processes: in the user's cache folder, or a temporary one.

The cache is never required: a damaged file is recreated, and where nothing can be written each process determines
the facts itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from lanline.errors import UserError
from lanline.files import write_text
from lanline.versions import child_environment


def recall(name: str, find_out: Callable[[], Any]) -> Any:
    """Plain JSON data: those that were kept under ``name``, else what ``find_out`` returns, which is kept.

    ``name`` must contain all that the facts depend on, e.g. the version of a library.
    """
    for folder in _folders():
        try:
            return _read(folder / name)
        except (OSError, ValueError):  # not there, or damaged
            continue
    facts = find_out()
    for folder in _folders():
        try:
            write_text(folder / name, _with_digest(json.dumps(facts)))
            break
        except OSError:
            continue
    return facts


def ask_child(module: str, what: str) -> Any:
    """The JSON that ``python -m module`` prints as its last line: in a separate process, for slow imports.

    Args:
        module: with its dots.
        what: the facts, for the message.

    Raises:
        UserError: the process failed; the message has its reason.
    """
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"the process ended with {_status(done.returncode)}"
        raise UserError(f"could not determine {what}: {reason} (`{' '.join(command)}` shows where)")
    return json.loads(done.stdout.splitlines()[-1])


def private_temporary_folder() -> Path:
    """A folder for temporary files that only this user can write to, the same in each process.

    Raises:
        OSError: there is none.
    """
    folder = Path(tempfile.gettempdir()) / f"lanline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()  # others can write to the folder above: what they put here is not read
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder that only this user can write to")
    return folder


def _folders() -> Iterator[Path]:
    cache = user_cache_path("lanline")
    if cache.is_absolute():  # not so for a user without a home
        yield cache
    try:
        yield private_temporary_folder()
    except OSError:
        return


def _with_digest(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n"


def _read(path: Path) -> Any:
    content = path.read_text()
    _, _, text = content.partition("\n")
    if content != _with_digest(text.rstrip("\n")):
        raise ValueError(f"{path} is damaged")
    return json.loads(text)


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
