"""The SQLite file of a store: made whole or not at all, recognised when it cannot be used, and moved with its folder.

MLflow makes its tables in dozens of steps, and a process that is killed in between leaves a file that no MLflow can
use any more. So a file is made under another name and then renamed.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from lanline.logs import say

SETTLED_SECONDS = 10.0  # a half-made file that is older than this is being made by nobody
# Columns that hold places of artifacts.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class Unusable(Exception):
    """The file is there and no store that this MLflow can use; the message says what to do."""


@dataclass(frozen=True)
class _Content:
    """What is in a file: its tables, the schema version, and whether anybody has recorded something."""

    tables: frozenset[str]
    version: str | None
    is_used: bool


def sqlite_uri(path: Path, query: str = "") -> str:
    """The URI of a file. One whose path has a ? is named in SQLite's own way, else SQLAlchemy cuts it there."""
    if "?" not in str(path):
        return f"sqlite:///{path}" + (f"?{query}" if query else "")
    others = [part for part in query.split("&") if part and part != "uri=true"]
    return f"sqlite:///file:{quote(str(path))}?" + "&".join(["uri=true", *others])


def sqlite_path(uri: str) -> str:
    """The path in a URI that `sqlite_uri` made, or that a user wrote."""
    path = uri.split(":", 1)[1].removeprefix("///").partition("?")[0]
    return unquote(path.removeprefix("file:")) if path.startswith("file:") else path


def artifact_place(folder: Path) -> str:
    """A folder of artifacts in the form that MLflow needs: as a URI, if it would misread parts of the path."""
    return folder.as_uri() if set("%?#") & set(str(folder)) else str(folder)


def local_folder(place: str) -> Path | None:
    """The folder that a place of artifacts stands for; None if that is on a server."""
    if place.startswith("file:"):
        return Path(unquote(urlsplit(place).path))
    return None if "://" in place else Path(place)


def check(database: Path) -> None:
    """Look at a file without changing it.

    Raises:
        FileNotFoundError: there is none.
        Unusable: it is damaged, half made, of another program, or of another version of MLflow.
    """
    if not database.exists():
        raise FileNotFoundError(2, "No such file or directory", str(database))
    content = _content(database)
    if content.version == _schema_version():
        return
    if _is_half_made(content):
        raise Unusable(
            f"{database} is incomplete and empty (its creation was interrupted): lanline's next tracked run creates it "
            "again"
        )
    if content.version is None:
        raise Unusable(f"{database} is a SQLite file, but not an MLflow store: name another one")
    if content.version in _known_versions():
        raise Unusable(
            f"{database} was made by an older MLflow (schema {content.version}): copy the file, then run "
            f"`mlflow db upgrade {sqlite_uri(database)}`"
        )
    raise Unusable(f"{database} was made by another version of MLflow (schema {content.version}): install that one")


def check_writable(database: Path) -> None:
    """Whether this user may write a file that is there, or make it.

    Raises:
        OSError: not so.
    """
    folder = next(parent for parent in database.parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))
    for path in (folder, database):
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, "no permission to write", str(path))


def make(database: Path) -> None:
    """Make a file if there is none; its writers' lock is held. What was left half made is put aside.

    Raises:
        Unusable: as `check`.
        OSError: it cannot be made.
    """
    while database.exists() and _is_half_made(_content(database)):
        age = time.time() - database.stat().st_mtime
        if age > SETTLED_SECONDS or database.stat().st_size == 0:
            aside = database.with_name(f"{database.name}.half-made-{secrets.token_hex(3)}")
            database.rename(aside)
            say(f"{database} is incomplete (its creation was interrupted): creating it again (the old one: {aside})")
        else:
            time.sleep(0.5)
    if database.exists():
        check(database)
        return
    for leftover in _unfinished(database):
        leftover.unlink(missing_ok=True)
    fresh = database.with_name(f".{database.name}.{secrets.token_hex(4)}.making")
    try:
        _fill(fresh)
        fresh.rename(database)
    finally:
        for leftover in _unfinished(database):
            leftover.unlink(missing_ok=True)


def _fill(fresh: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(sqlite_uri(fresh), "./mlruns").engine.dispose()
    with fresh.open("rb") as handle:
        os.fsync(handle.fileno())


def _unfinished(database: Path) -> Iterator[Path]:
    """Files of a making that was cut off, SQLite's own beside them too."""
    for path in list(database.parent.iterdir()):
        if path.name.startswith(f".{database.name}.") and ".making" in path.name:
            yield path


def follow_folder(database: Path, place: str) -> None:
    """Set the places of artifacts to ``place``, beside the file, where they still name the folder that it was moved or
    copied from; its writers' lock is held."""
    new = local_folder(place)
    if new is None:
        return
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        olds = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in olds:
            if old and old != place and _has_moved(connection, old, new):
                say(f"{database} moved with its artifacts, from {old} to {place}: its records were updated")
                replace_place(connection, old, place)
        connection.commit()


def _has_moved(connection: sqlite3.Connection, old: str, new: Path) -> bool:
    there = local_folder(old)
    if there is None or there.name != new.name or (there.exists() and there.resolve() == new.resolve()):
        return False
    query = "SELECT run_uuid FROM runs WHERE artifact_uri LIKE ? || '/%'"
    runs = [run for (run,) in connection.execute(query, (old,))]
    return any((new / run).is_dir() for run in runs) or not there.parent.exists()


def replace_place(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Set every place of artifacts in a database that is ``old``, or lies in it."""
    for table, column in _PLACES:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ? || '/%'",
            (new, len(old) + 1, old, old),
        )


def _content(database: Path) -> _Content:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=20)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables = frozenset(name for (name,) in found)
            versions = _column(connection, tables, "alembic_version", "version_num")
            runs = _column(connection, tables, "runs", "run_uuid")
            experiments = _column(connection, tables, "experiments", "experiment_id")
            models = _column(connection, tables, "registered_models", "name")
    except sqlite3.OperationalError as error:
        raise OSError(5, str(error), str(database)) from None
    except sqlite3.DatabaseError as error:
        raise Unusable(f"{database} is not a SQLite file, or is damaged ({error}): move it, or name another") from None
    return _Content(tables, versions[0] if versions else None, bool(runs or models or len(experiments) > 1))


def _column(connection: sqlite3.Connection, tables: frozenset[str], table: str, column: str) -> list[str]:
    """The first values of a column, if there is that table."""
    if table not in tables:
        return []
    return [value for (value,) in connection.execute(f"SELECT {column} FROM {table} LIMIT 2")]


def _is_half_made(content: _Content) -> bool:
    if content.is_used or content.version == _schema_version():
        return False
    return not content.tables or bool(content.tables & {"experiments", "alembic_version"})


@cache
def _schema_version() -> str | None:
    """The schema of the MLflow that is installed."""
    return _known_versions()[0] if _known_versions() else None


@cache
def _known_versions() -> tuple[str, ...]:
    """The schemas that the installed MLflow knows, newest first."""
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return tuple(script.revision for script in scripts.walk_revisions())
