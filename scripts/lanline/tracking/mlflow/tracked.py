"""Runs as MLflow has them: found by key, and read in the shape of a journal's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanline.errors import UserError
from lanline.files import redact
from lanline.tracking.journal.events import Dataset
from lanline.tracking.journal.record import MetricValue, RecordedFile, RunRecord
from lanline.tracking.mlflow.store import Store, call, call_all

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun

KEY_TAG = "lanline.key"
HASHES_TAG = "lanline.sha256"  # of artifacts as the journal has them: JSON, by their path in the run
CONTEXT_TAG = "mlflow.data.context"
_QUOTABLE = re.compile(r"[\w.:/ -]{1,250}")


def quoted(value: str) -> str:
    """A value for a query of MLflow, which knows no way to escape a quote.

    Raises:
        UserError: it is no key or id.
    """
    if not _QUOTABLE.fullmatch(value):
        raise UserError(f"{value!r} is not an id or key: expected letters, digits and - _ . : / only")
    return f"'{value}'"


def runs_with_key(client: MlflowClient, store: Store, key: str, experiment_ids: list[str]) -> list[MlflowRun]:
    """The runs of a journal's key. There is one, unless a server made two because its first answer was lost: then the
    one with more in it comes first, and of equals that with the lower id, whatever a clock says."""
    from mlflow.entities import ViewType

    query = f"tags.`{KEY_TAG}` = {quoted(key)}"
    found = call_all(store, client.search_runs, experiment_ids, query, ViewType.ACTIVE_ONLY)
    return sorted(found, key=lambda run: (-_content(run), run.info.run_id))


def _content(run: MlflowRun) -> int:
    return len(run.data.metrics) + len(run.data.params) + len(run.data.tags)


def find_run(client: MlflowClient, store: Store, key: str) -> str | None:
    """MLflow's id of the run of a journal's key.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: it is no key.
    """
    found = runs_with_key(client, store, key, experiment_ids(client, store))
    return found[0].info.run_id if found else None


def experiment_ids(client: MlflowClient, store: Store) -> list[str]:
    return [experiment.experiment_id for experiment in call_all(store, client.search_experiments)]


def get_run(client: MlflowClient, store: Store, run_id: str) -> MlflowRun | None:
    """A run, in MLflow's trash too; None if it was removed for good, or its store replaced (`make clean`)."""
    from mlflow.exceptions import MlflowException

    try:
        return call(store, client.get_run, run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def unfinished_run(client: MlflowClient, store: Store, run_id: str) -> MlflowRun:
    """The MLflow run of that id, if it may be resumed.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: the run is unknown, deleted, or has finished.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = call(store, client.get_run, run_id)
    except MlflowException as error:
        raise UserError(f"MLflow run {run_id} cannot be resumed: {redact(str(error))}") from None
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"MLflow run {run_id} was deleted: restore it in {store.shown}, or omit --mlflow-run-id")
    if run.info.status == "FINISHED":
        raise UserError(f"MLflow run {run_id} cannot be resumed (finished): omit --mlflow-run-id to start a new run")
    return run


def artifact_hashes(tags: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of a run's artifacts when they were recorded, as far as MLflow has them."""
    return json.loads(tags.get(HASHES_TAG, "{}"))


def read_tracked(client: MlflowClient, store: Store, run: MlflowRun, copies: Path) -> RunRecord:
    """The record of a run of MLflow, with the whole history of its metrics; its artifacts are copied into the folder
    ``copies``."""
    run_id, tags = run.info.run_id, dict(run.data.tags)
    copies.mkdir(parents=True, exist_ok=True)
    if call(store, client.list_artifacts, run_id):
        call(store, client.download_artifacts, run_id, "", str(copies))
    return RunRecord(
        key=tags.get(KEY_TAG),
        run_id=run_id,
        name=run.info.run_name,
        experiment=call(store, client.get_experiment, run.info.experiment_id).name,
        status=run.info.status,
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        store=store.shown,
        params=dict(run.data.params),
        tags=tags,
        history=tuple(
            MetricValue(point.key, point.value, point.timestamp, point.step)
            for name in run.data.metrics
            for point in call(store, client.get_metric_history, run_id, name)
        ),
        datasets=tuple(_dataset(each) for each in (run.inputs.dataset_inputs if run.inputs else [])),
        files=_files(run_id, tags, copies),
        source=f"MLflow {store.shown}",
    )


def _files(run_id: str, tags: Mapping[str, str], copies: Path) -> dict[str, RecordedFile]:
    there = {path.relative_to(copies).as_posix() for path in copies.rglob("*") if path.is_file()}
    hashes = artifact_hashes(tags)  # not of the copies: the store's files may have been changed
    return {
        name: RecordedFile(name, copies / name, hashes.get(name), f"runs:/{run_id}/{name}")
        for name in sorted(there | hashes.keys())
    }


def _dataset(entry: DatasetInput) -> Dataset:
    described: dict[str, Any] = dict(entry.dataset)
    tags = {tag.key: tag.value for tag in entry.tags}
    return Dataset(
        name=entry.dataset.name,
        digest=entry.dataset.digest,
        source=redact(entry.dataset.source),
        context=tags.pop(CONTEXT_TAG, None),
        tags=tags,
        profile=_profile(entry.dataset.profile),
        described=described,
    )


def _profile(text: str | None) -> dict[str, Any]:
    """The profile that lanline wrote; other programs' can be of any kind, and are kept in the description."""
    try:
        profile = json.loads(text or "{}")
    except ValueError:
        return {}
    return profile if isinstance(profile, dict) else {}
