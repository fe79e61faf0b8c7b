"""MLflow's old file store (``./mlruns``) migrated to SQLite, with artifacts that open afterwards."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from lanline.errors import UserError
from lanline.logs import say
from lanline.tracking.mlflow.database import artifact_place, local_folder, replace_place, sqlite_uri
from lanline.tracking.mlflow.store import DEFAULT_URI, Store, resolve_store, write_lock


def target(uri: str | None, artifact_location: str | None) -> Store:
    """The store to migrate into: that of the settings or, where they still name the old folder, the default one.

    Args:
        uri: of the configuration; None: MLFLOW_TRACKING_URI is asked.
        artifact_location: of the configuration.
    """
    named = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if "://" in named.removeprefix("file://") or not Path(unquote(named.removeprefix("file:"))).is_dir():
        return resolve_store(uri, artifact_location)
    say(
        f"the settings name the old store itself, {named}: its runs go to {DEFAULT_URI}. "
        f"Set {'tracking.uri' if uri else 'MLFLOW_TRACKING_URI'} to that, or unset it, for future runs"
    )
    return resolve_store(DEFAULT_URI, artifact_location)


def migrate(source: Path, store: Store) -> dict[str, int]:
    """Copy a file store into a SQLite store that has no runs yet. The source is only read.

    Ids stay as they are. Artifacts below the source are copied to the store's artifact location; those that
    lie elsewhere stay there.

    Args:
        source: folder ``mlruns``.
        store: a SQLite store.

    Returns:
        Number of runs, params and metric values, which were compared with the source's.

    Raises:
        UserError: ``source`` is no file store, the store has runs or is not SQLite, or the counts differ.
    """
    source = Path(source).resolve()
    if not any(source.glob("*/meta.yaml")):
        raise UserError(f"{source} is not a file store of MLflow: no folder in it has a meta.yaml")
    if store.database is None:
        raise UserError(f"{store.shown}: a file store is migrated to a SQLite store, e.g. sqlite:///mlflow.db")
    artifacts = local_folder(store.artifact_location or "")
    if artifacts is None:
        raise UserError(f"{store.shown}: artifacts are copied to a folder: unset MLFLOW_ARTIFACT_LOCATION")
    database = store.database
    _refuse_if_it_has_runs(database)
    database.parent.mkdir(parents=True, exist_ok=True)
    fresh = database.with_name(database.name + ".migrating")
    fresh.unlink(missing_ok=True)
    try:
        command = [sys.executable, "-m", "mlflow", "migrate-filestore"]
        command += ["--source", str(source), "--target", sqlite_uri(fresh), "--no-progress"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise UserError(f"`mlflow migrate-filestore` failed (it needs MLflow of 2026 or later):\n{done.stderr}")
        found, wanted = _counts(fresh), _counts_of_source(source)
        if found != wanted:
            raise UserError(f"{source} has {wanted}, but {found} arrived; {store.shown} was left as it was")
        with closing(sqlite3.connect(fresh)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # the migration's WAL mode is no good on shared disks
            _move_artifacts(connection, source, artifacts)
            connection.commit()
        _put_in_place(fresh, database, store)
    finally:
        for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
            leftover.unlink(missing_ok=True)
    return found


def _refuse_if_it_has_runs(database: Path) -> None:
    if database.exists() and _counts(database)["runs"]:
        raise UserError(
            f"{sqlite_uri(database)} already has runs, and MLflow migrates only into an empty store: "
            "set MLFLOW_TRACKING_URI to another file, e.g. sqlite:///mlflow-old.db"
        )


def _put_in_place(fresh: Path, database: Path, store: Store) -> None:
    """Make the new database the store's, unless a run began while it was made."""
    with write_lock(store):
        _refuse_if_it_has_runs(database)
        if not database.exists():
            fresh.replace(database)
            return
        # Into the file that is there: who has it open would continue to write to one that was replaced.
        with closing(sqlite3.connect(fresh)) as source, closing(sqlite3.connect(database)) as target:
            source.backup(target)


def _counts(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as connection:
        tables = ("runs", "params", "metrics")
        return {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables}


def _counts_of_source(source: Path) -> dict[str, int]:
    runs = [
        meta.parent
        for pattern in ("*/*/meta.yaml", ".trash/*/*/meta.yaml")
        for meta in source.glob(pattern)
        if "run_id" in (yaml.safe_load(meta.read_text()) or {})
    ]
    params = sum(path.is_file() for run in runs for path in (run / "params").rglob("*"))
    metrics = [path for run in runs for path in (run / "metrics").rglob("*") if path.is_file()]
    values = sum(len(set(path.read_text().splitlines())) for path in metrics)
    return {"runs": len(runs), "params": params, "metrics": values}


def _move_artifacts(connection: sqlite3.Connection, source: Path, target: Path) -> None:
    """Copy what lies in the source, and set every place in the database from the old root to the new one."""
    rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
    for experiment_id, old in rows:
        here = source / str(experiment_id)
        if not here.is_dir():
            here = source / ".trash" / str(experiment_id)
        place = Path(unquote(urlsplit(old).path)) if old.startswith("file:") else Path(old)
        if "://" in old.removeprefix("file://") or (place.resolve() != here and place.is_dir()):
            continue  # on a server, or in a folder of its own that is still there
        new = target / str(experiment_id)
        for folder in [*here.glob("*/artifacts"), *here.glob("models/*/artifacts")]:
            shutil.copytree(folder, new / folder.relative_to(here), dirs_exist_ok=True)
        replace_place(connection, old, artifact_place(new))
