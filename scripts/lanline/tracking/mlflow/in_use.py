"""Which SQLite stores are in use: a run that is being recorded holds a lock on a file beside its store.

Journals tell of the runs below a folder (`lanline.tracking.mlflow.sync.alive_runs`); one that records from elsewhere is
seen by this file only. Of a server's store its own files tell nothing.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TextIO

from lanline.locks import try_lock
from lanline.tracking.mlflow.store import Store

SUFFIX = ".runs"  # of the file beside the store, which all its runs lock together


def mark_in_use(store: Store | None) -> TextIO | None:
    """The file beside the store, locked until it is closed or the process ends; None where there is no place for it."""
    if store is None or store.database is None or not store.database.parent.is_dir():
        return None
    with suppress(OSError):  # a folder that cannot be written, a file system without locks
        file = store.database.with_name(store.database.name + SUFFIX).open("a")
        try_lock(file, shared=True)
        return file
    return None


def stores_in_use(folder: Path) -> list[Path]:
    """The files of `mark_in_use` in ``folder`` that runs hold, of stores there or of stores that are to be made."""
    held = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with path.open("a") as file:
            if not try_lock(file):
                held.append(path)
    return held
