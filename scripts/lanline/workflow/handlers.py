"""What happens before the first job and after the last one: the bodies of onstart, onsuccess and onerror."""

from __future__ import annotations

from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from lanline.cluster.folder import lock_workdir
from lanline.config import Config
from lanline.errors import UserError
from lanline.paths import Paths
from lanline.workflow.terminal import FOR_PEOPLE


def before_jobs(config: Config) -> None:
    """Hold the working directory, and check the tracking store if nothing may run without it.

    Raises:
        WorkflowError: another Snakemake or its jobs run here, or the store is needed and unreachable.
    """
    try:
        lock_workdir(Path())  # until this process ends
        _require_store(config)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def after_jobs(config: Config) -> None:
    """Sync the records that are on disk only, and end the runs of jobs that were killed."""
    if not config.mlflow_tracking:
        return
    from lanline.tracking.mlflow.store import StoreUnavailable, store_of
    from lanline.tracking.mlflow.sync import sync

    store = store_of(config)
    assert store is not None, "tracking is on"
    try:
        _tell("\n".join(sync(Paths(config.name).reports, store)))
    except StoreUnavailable as error:
        logger.warning(f"{error}; `make mlflow-sync` syncs the record later")
    except UserError as error:  # the workflow is done: what is wrong with its record does not undo that
        logger.warning(f"could not sync to MLflow: {error}")


def show_summary(paths: Paths, started: float) -> None:
    """Print the table of all networks, if this Snakemake, which started at that time, has written it."""
    summary = paths.summary("txt")
    if summary.exists() and summary.stat().st_mtime >= started:
        _tell(summary.read_text())


def _tell(text: str) -> None:
    """Show a text, unless it is empty: through Snakemake's logger it comes after the line of the last job."""
    if text:
        logger.info(text, extra={FOR_PEOPLE: True})


def _require_store(config: Config) -> None:
    """With tracking.on_outage: fail, let nothing be computed whose record could not be kept.

    open_experiments asks too, but runs once only; what it wrote already exists when further shards are made.
    """
    if not (config.mlflow_tracking and config.tracking.on_outage == "fail"):
        return
    from lanline.tracking.mlflow.store import probe, store_of

    store = store_of(config)
    assert store is not None, "tracking is on"
    try:
        probe(store)
    except UserError as error:
        raise UserError(f"{error}; nothing is computed (tracking.on_outage: fail)") from None
