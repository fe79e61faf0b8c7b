"""Where MLflow keeps its record: finding the store, making it once, and writing to it without losing
anything.

MLflow is optional and slow to import (2 s), so it is imported inside functions only. Three of its traps are
closed here for everyone: processes that open the same new SQLite file race in its schema migration, writers
of one SQLite file give up under contention ("database is locked"), and a client of a dead server hangs for
minutes.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lanline.config import Config
from lanline.errors import UserError
from lanline.files import redact
from lanline.locks import locked
from lanline.logs import say
from lanline.tracking.mlflow import database

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"  # folder beside a SQLite file
# With the port that a database server is asked at when the URI names none.
SCHEMES = {"sqlite": None, "http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
MLFLOW_MISSING = "MLflow is not installed here (`pip install lanline[mlflow]` adds it)"
PROBE_SECONDS = 4
LOCKED_RETRIES = 20

# Codes of MLflow's errors that say nothing about what was asked for.
_OUTAGES = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
}

# What a user has set in the environment is kept.
_CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class StoreUnavailable(UserError):
    """The store cannot be used now: the server is down, the file cannot be written, MLflow is not installed here.
    Later it may be."""


@dataclass(frozen=True)
class Store:
    """An MLflow tracking store.

    Attributes:
        uri: tracking URI, absolute, with its credentials: never write or show it, use ``shown``.
        artifact_location: root for the artifacts of experiments that are made here; None leaves it to the
            server.
    """

    uri: str
    artifact_location: str | None

    @property
    def shown(self) -> str:
        """The URI without credentials, for files, logs and messages."""
        return redact(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for another kind of store."""
        if not self.uri.startswith("sqlite:"):
            return None
        return Path(database.sqlite_path(self.uri))

    def is_named(self, shown: str) -> bool:
        """Whether a journal that names its store so belongs to this one."""
        return redact(shown) == self.shown

    def __repr__(self) -> str:
        return f"Store({self.shown})"


def store_of(config: Config) -> Store | None:
    """The MLflow store that the configuration names, or None with tracking off."""
    if not config.mlflow_tracking:
        return None
    return resolve_store(config.tracking.uri, config.tracking.artifact_location)


def resolve_store(uri: str | None = None, artifact_location: str | None = None) -> Store:
    """The store to use: argument, else environment, else ``sqlite:///mlflow.db``; each setting on its own.

    Relative SQLite files and artifact folders are taken from the working directory. Without an artifact
    location, artifacts of a database store lie in ``mlartifacts`` beside the SQLite file (or in the working
    directory), never in ``./mlruns``, which MLflow would mistake for an old file store.

    Args:
        uri: overrides MLFLOW_TRACKING_URI.
        artifact_location: overrides MLFLOW_ARTIFACT_LOCATION.

    Raises:
        UserError: the URI is a folder (MLflow's old file store), has an unknown scheme, or a password that cannot be
            told from the rest.
    """
    source = "tracking URI" if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    artifact_location = artifact_location or os.environ.get("MLFLOW_ARTIFACT_LOCATION")
    scheme = uri.split(":", 1)[0].split("+")[0] if "://" in uri else ""
    if scheme not in SCHEMES:
        raise UserError(
            f"{source} {redact(uri)!r} is not one of {', '.join(SCHEMES)} (a folder, MLflow's old file "
            f"store, is no longer supported). Set it to e.g. {DEFAULT_URI}; `make mlflow-migrate SOURCE=./mlruns` "
            "migrates the runs of a file store to it"
        )
    if scheme == "sqlite":
        path, query = database.sqlite_path(uri), uri.partition("?")[2]
        if path.startswith("//") or path in ("", ":memory:") or (query and "=" not in query):
            raise UserError(
                f"{source} {redact(uri)!r} names no file: use e.g. {DEFAULT_URI} or sqlite:////absolute/path/mlflow.db"
            )
        file = Path.cwd() / path
        uri = database.sqlite_uri(file, query)
        artifact_location = artifact_location or database.artifact_place(file.parent / ARTIFACTS)
    else:
        _check_address(source, uri)
        if not scheme.startswith("http"):
            artifact_location = artifact_location or ARTIFACTS
    if artifact_location and "://" not in artifact_location:
        artifact_location = database.artifact_place(Path.cwd() / artifact_location)
    return Store(uri, artifact_location)


def _check_address(source: str, uri: str) -> None:
    """Refuse a server's URI that programs read in different ways: parts of its password would show in messages."""
    user, at, _ = uri.split("://", 1)[1].rpartition("@")
    if at and re.search(r"[/?#\s\"'<>]", user):
        raise UserError(
            f"{source} (not shown: it may hold a password) has one of / ? # \" ' < > or a space before an @: "
            "write them percent-encoded, e.g. %2F for a slash"
        )
    try:
        urlsplit(uri).port  # noqa: B018  raises for what is no number
    except ValueError:
        raise UserError(
            f"{source} (not shown: it may hold a password) is not an address: expected e.g. http://host:5000 or "
            "postgresql://user:password@host:5432/mlflow"
        ) from None


def experiment_name(option: str | None, configured: str | None, default: str) -> str:
    """Name of an MLflow experiment: option, configuration, environment, default."""
    return option or configured or os.environ.get("MLFLOW_EXPERIMENT_NAME") or default


def mlflow_installed() -> bool:
    return find_spec("mlflow") is not None


def connect(store: Store) -> MlflowClient:
    """A client of the store to write to; a SQLite store is made first, by one process at a time.

    Raises:
        StoreUnavailable: within 10 seconds, if the server does not answer, if MLflow is not installed, or if the SQLite
            file cannot be made, written or used.
    """
    _prepare(store, writes=True)
    if file := store.database:
        with _as_outage(store), write_lock(store):
            database.make(file)
            if store.artifact_location and _lies_beside(store.artifact_location, file):
                database.follow_folder(file, store.artifact_location)
    return call(store, _client, store)


def connect_to_read(store: Store) -> MlflowClient:
    """A client of the store to ask it something: nothing is made or changed for it.

    Raises:
        StoreUnavailable: as `connect`, and if there is no SQLite file.
    """
    _prepare(store, writes=False)
    if file := store.database:
        if not file.exists():
            raise StoreUnavailable(f"there is no MLflow store {store.shown}")
        with _as_outage(store):
            database.check(file)
    return call(store, _client, store)


def _prepare(store: Store, writes: bool) -> None:
    probe(store, writes)
    if not mlflow_installed():
        raise StoreUnavailable(MLFLOW_MISSING)
    for name, value in _CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _client(store: Store) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)


def _lies_beside(place: str, file: Path) -> bool:
    return place == database.artifact_place(file.parent / ARTIFACTS)


@contextmanager
def _as_outage(store: Store) -> Iterator[None]:
    """Whatever keeps a store from being used is an outage, about which the setting on_outage decides."""
    try:
        yield
    except database.Unusable as error:
        raise StoreUnavailable(f"MLflow store cannot be used: {error}") from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StoreUnavailable(f"MLflow store {store.shown}: {error.strerror or error}{where}") from None


def probe(store: Store, writes: bool = True) -> None:
    """Ask a server whether it lives, or look whether a SQLite file can be written, without importing MLflow.

    Raises:
        StoreUnavailable: nothing answers within `PROBE_SECONDS`, a proxy says that the server is down, or the file
            ``writes`` is about is not this user's to write.
    """
    if (file := store.database) and writes:
        with _as_outage(store):
            database.check_writable(file)
    parts = urlsplit(store.uri)
    try:
        if parts.scheme in ("http", "https"):
            host = parts.netloc.rpartition("@")[2]
            health = parts._replace(netloc=host, path=parts.path.rstrip("/") + "/health", query="")
            urllib.request.urlopen(health.geturl(), timeout=PROBE_SECONDS).close()
        elif parts.hostname:
            port = parts.port or SCHEMES[parts.scheme.split("+")[0]]
            socket.create_connection((parts.hostname, port), PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise StoreUnavailable(f"MLflow server {store.shown} returned HTTP status {error.code}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise StoreUnavailable(f"MLflow store {store.shown} is unreachable: {reason}") from None


def call(store: Store, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run one call of a client, again while other writers hold SQLite.

    Raises:
        StoreUnavailable: the store went away. Other errors of MLflow come through as they are.
    """
    for attempt in range(LOCKED_RETRIES):
        try:
            return function(*args, **kwargs)
        except Exception as error:
            code = getattr(error, "error_code", None)
            busy = store.database and code == "TEMPORARILY_UNAVAILABLE" and "locked" in str(error)
            if busy and attempt < LOCKED_RETRIES - 1:
                time.sleep(min(0.1 * 2**attempt, 2))  # the MLflow UI writes too, and knows no lock
            elif _is_outage(error, code):
                # `from None`: the original message and its traceback can hold the password of the URI.
                raise StoreUnavailable(f"MLflow store {store.shown}: {redact(str(error))}") from None
            else:
                raise


def call_all(store: Store, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Everything that a searching call of a client finds, page by page, each asked for as by `call`."""
    token = None
    while True:
        page = call(store, function, *args, page_token=token, **kwargs)
        yield from page
        token = page.token
        if not token:
            return


def write(store: Store, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run one writing call of a client, as `call` does, and on SQLite in turn with lanline's other writers."""
    with _as_outage(store), write_lock(store):
        return call(store, function, *args, **kwargs)


def write_lock(store: Store) -> AbstractContextManager[None]:
    """Holds a SQLite store against lanline's other writers; a server needs nothing."""
    if store.database is None:
        return nullcontext()
    return locked(store.database.with_name(store.database.name + ".lock"))


def _is_outage(error: Exception, code: str | None) -> bool:
    origins = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
    return code in _OUTAGES or bool(origins & {"requests", "sqlalchemy"})


def get_or_create_experiment(client: MlflowClient, store: Store, name: str) -> str:
    """The id of the experiment of that name; made with the store's artifact location if there is none.

    A deleted experiment is restored: its name cannot be used otherwise, and nothing of it is lost.
    """
    from mlflow.exceptions import MlflowException

    experiment = call(store, client.get_experiment_by_name, name)
    if experiment is None:
        try:
            return write(store, client.create_experiment, name, artifact_location=store.artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = call(store, client.get_experiment_by_name, name)  # another process was faster
    if experiment.lifecycle_stage == "deleted":
        say(f"MLflow experiment '{name}' was deleted; restoring it for the new run")
        write(store, client.restore_experiment, experiment.experiment_id)
    return experiment.experiment_id


def create_experiments(store: Store, names: list[str]) -> dict[str, str]:
    """Make the store and these experiments, once, before a workflow fans out, and return name -> experiment id.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    client = connect(store)
    return {name: get_or_create_experiment(client, store, name) for name in names}
