"""What the commands share: options, their precedence, and how they end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

MAX_SEED = 2**63 - 1  # as in a configuration
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

MlflowOn = Annotated[bool, typer.Option("--mlflow-on", help="Record the run in MLflow.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--mlflow-tracking-uri",
        metavar="URI",
        help="MLflow store, e.g. sqlite:///mlflow.db or http://server:5000. Default: MLFLOW_TRACKING_URI, then "
        "sqlite:///mlflow.db.",
    ),
]
ArtifactLocation = Annotated[
    str | None,
    typer.Option(
        "--mlflow-artifact-location",
        metavar="FOLDER_OR_URI",
        help="Root for artifacts of a new experiment. Default: MLFLOW_ARTIFACT_LOCATION, then mlartifacts beside the "
        "SQLite file, or what a server decides.",
    ),
]
RunName = Annotated[
    str | None, typer.Option("--mlflow-run-name", help="Name of the run in MLflow; switches tracking on.")
]
ExperimentName = Annotated[
    str | None,
    typer.Option(
        "--mlflow-experiment-name",
        help="MLflow experiment. Default: MLFLOW_EXPERIMENT_NAME, then <model>-training (or <model>-data-generation).",
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        "-l",
        metavar="LEVEL",
        help=f"How much the libraries say: {', '.join(LEVELS)}. lanline's own lines about the progress always come.",
    ),
]


def app() -> typer.Typer:
    """An application without Typer's slow imports: no rich text, no completion."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@contextmanager
def command(log_level: str = "WARNING") -> Iterator[None]:
    """A command's body: a user's mistake, or what the system refuses, ends it with one message and exit code 1."""
    from lanline.errors import UserError, reason

    try:
        if log_level.upper() not in LEVELS:
            raise UserError(f"--log-level {log_level}: expected one of {', '.join(LEVELS)}")
        logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (OSError, MemoryError) as error:  # a full disk, a file where a folder is expected, no permission
        logging.getLogger(__name__).debug("where it happened", exc_info=True)
        print(f"error: {reason(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def note_unused_tracking_options(tracking: bool, uri: str | None, artifact_location: str | None) -> None:
    """Say so when a store is named but nothing goes there."""
    from lanline.logs import say

    if not tracking and (uri or artifact_location):
        say("MLflow tracking is off, so its URI and artifact location are not used; --mlflow-on switches it on")


def wide_console() -> Console:
    """A console for tables: as wide as the terminal, and wide enough for every table where there is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
