"""Where MLflow keeps its record: finding the store, making it once, and writing to it without losing
anything.

MLflow is optional and slow to import (2 s), so it is imported inside functions only. Three of its traps are
closed here for everyone: processes that open the same new SQLite file race in its schema migration, writers
of one SQLite file give up under contention ("database is locked"), and a client of a dead server hangs for
minutes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lanline.config import Config
from lanline.errors import UserError
from lanline.files import redact
from lanline.logs import say

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

DEFAULT_URI = "sqlite:///mlflow.db"
# With the port that a database server is asked at when the URI names none.
SCHEMES = {"sqlite": None, "http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
MLFLOW_MISSING = "MLflow is not installed here (`pip install lanline[mlflow]` adds it)"
PROBE_SECONDS = 4
LOCKED_RETRIES = 20

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
    """The store cannot be reached now: the server is down, or MLflow is not installed here. Later it may
    be."""


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
        return Path(self.uri.removeprefix("sqlite:///").split("?")[0])

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
            "brings the runs of a file store there"
        )
    if scheme == "sqlite":
        path, _, query = uri.split(":", 1)[1].removeprefix("///").partition("?")
        if path.startswith("//") or path in ("", ":memory:"):
            raise UserError(
                f"{source} {redact(uri)!r} names no file: use e.g. {DEFAULT_URI} or sqlite:////absolute/path/mlflow.db"
            )
        database = Path.cwd() / path
        uri = f"sqlite:///{database}" + (f"?{query}" if query else "")
        artifact_location = artifact_location or str(database.parent / "mlartifacts")
    else:
        _check_address(source, uri)
        if not scheme.startswith("http"):
            artifact_location = artifact_location or "mlartifacts"
    if artifact_location and "://" not in artifact_location:
        artifact_location = str(Path.cwd() / artifact_location)
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
            f"{source} (not shown: it may hold a password) is no address: expected e.g. http://host:5000 or "
            "postgresql://user:password@host:5432/mlflow"
        ) from None


def experiment_name(option: str | None, configured: str | None, default: str) -> str:
    """Name of an MLflow experiment: option, configuration, environment, default."""
    return option or configured or os.environ.get("MLFLOW_EXPERIMENT_NAME") or default


def mlflow_installed() -> bool:
    return find_spec("mlflow") is not None


def connect(store: Store) -> MlflowClient:
    """A client of the store; a SQLite store is made first, by one process at a time.

    Raises:
        StoreUnavailable: within 10 seconds, if the server does not answer, or if MLflow is not installed.
    """
    probe(store)
    if not mlflow_installed():
        raise StoreUnavailable(MLFLOW_MISSING)
    for name, value in _CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return write(store, lambda: MlflowClient(tracking_uri=store.uri, registry_uri=store.uri))


def probe(store: Store) -> None:
    """Ask a server whether it lives, without importing MLflow. Does nothing for a SQLite file.

    Raises:
        StoreUnavailable: nothing answers within `PROBE_SECONDS`, or a proxy says that the server is down.
    """
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
            raise StoreUnavailable(f"MLflow server {store.shown} answers with HTTP status {error.code}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise StoreUnavailable(f"MLflow store {store.shown} does not answer: {reason}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes and threads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ask(store: Store, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run one call of a client, again while other writers hold SQLite.

    Raises:
        StoreUnavailable: the store went away. Other errors of MLflow come through as they are.
    """
    for attempt in range(LOCKED_RETRIES):
        try:
            return call(*args, **kwargs)
        except Exception as error:
            code = getattr(error, "error_code", None)
            if code == "TEMPORARILY_UNAVAILABLE" and store.database and attempt < LOCKED_RETRIES - 1:
                time.sleep(min(0.1 * 2**attempt, 2))  # the MLflow UI writes too, and knows no lock
            elif _is_outage(error, code):
                # `from None`: the original message and its traceback can hold the password of the URI.
                raise StoreUnavailable(f"MLflow store {store.shown}: {redact(str(error))}") from None
            else:
                raise


def get_run(client: MlflowClient, store: Store, run_id: str) -> MlflowRun | None:
    """A run, in MLflow's trash too; None if it was removed for good, or its store replaced (`make clean`)."""
    from mlflow.exceptions import MlflowException

    try:
        return ask(store, client.get_run, run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def ask_all(store: Store, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Everything that a searching call of a client finds, page by page, each asked for as by `ask`."""
    token = None
    while True:
        page = ask(store, call, *args, page_token=token, **kwargs)
        yield from page
        token = page.token
        if not token:
            return


def write(store: Store, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run one writing call of a client, as `ask` does, and on SQLite in turn with lanline's other writers."""
    if store.database is None:
        return ask(store, call, *args, **kwargs)
    with write_lock(store):
        return ask(store, call, *args, **kwargs)


def write_lock(store: Store) -> AbstractContextManager[None]:
    """Holds a SQLite store against lanline's other writers."""
    return locked(store.database.with_name(store.database.name + ".lock"))


def _is_outage(error: Exception, code: str | None) -> bool:
    origins = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
    return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE") or bool(origins & {"requests", "sqlalchemy"})


def get_or_create_experiment(client: MlflowClient, store: Store, name: str) -> str:
    """The id of the experiment of that name; made with the store's artifact location if there is none.

    A deleted experiment is restored: its name cannot be used otherwise, and nothing of it is lost.
    """
    from mlflow.exceptions import MlflowException

    experiment = ask(store, client.get_experiment_by_name, name)
    if experiment is None:
        try:
            return write(store, client.create_experiment, name, artifact_location=store.artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = ask(store, client.get_experiment_by_name, name)  # another process was faster
    if experiment.lifecycle_stage == "deleted":
        say(f"MLflow experiment '{name}' was deleted and is restored, because a new run goes there")
        write(store, client.restore_experiment, experiment.experiment_id)
    return experiment.experiment_id


def create_experiments(store: Store, names: list[str]) -> dict[str, str]:
    """Make the store and these experiments, once, before a workflow fans out. Gives name -> experiment id.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    client = connect(store)
    return {name: get_or_create_experiment(client, store, name) for name in names}
