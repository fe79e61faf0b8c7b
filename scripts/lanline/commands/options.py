"""What the commands share: options, their precedence, and how they end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

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
        "SQLite file; a server decides itself.",
    ),
]
RunName = Annotated[str | None, typer.Option("--mlflow-run-name", help="Name of the run in MLflow; turns tracking on.")]
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
        help=f"Log level of the libraries: {', '.join(LEVELS)}. lanline's own progress lines are always shown.",
    ),
]


def app() -> typer.Typer:
    """An application without Typer's slow imports: no rich text, no completion."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class TrackingOptions:
    """The options for MLflow of `lanline train` and `lanline generate`.

    Attributes:
        on: whether the run is recorded in MLflow; a run's name or id, or an experiment with data, switch it on too.
        uri: of the store.
        artifact_location: root for the artifacts of a new experiment.
        experiment: name of the experiment.
        run_name: name of the run.
        run_id: an unfinished run to resume.
    """

    on: bool = False
    uri: str | None = None
    artifact_location: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    run_id: str | None = None

    def configure(self, values: Mapping[str, Any], source: str) -> dict[str, Any]:
        """The keys ``mlflow_tracking`` and ``tracking`` of a configuration, with the options put into ``values``.

        Raises:
            UserError: ``tracking`` is no section; ``source`` is named.
        """
        from lanline.files import section

        tracked = bool(self.on or self.run_name or self.run_id or values.get("mlflow_tracking"))
        given = {"uri": self.uri, "artifact_location": self.artifact_location}
        given = {key: value for key, value in given.items() if value}
        if given and not tracked:
            from lanline.logs import say

            say("MLflow tracking is off, so its URI and artifact location are ignored; --mlflow-on turns it on")
        return {"mlflow_tracking": tracked, "tracking": {**section(values, "tracking", source), **given}}


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


def wide_console() -> Console:
    """A console for tables: as wide as the terminal, and wide enough for every table where there is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)
