"""Runs on their way from one store to another: an archive to share, and MLflow's old file store brought into
SQLite.

An archive is a zip file: ``manifest.json`` (sha256 and bytes of every other member), ``runs.json`` (the run
and the run of its data set, with params, tags, data set inputs, and metrics with steps and times) and
``artifacts/<run id>/...``.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic refuses that of Python 3.11

from lanline.errors import UserError
from lanline.files import atomic_path, redact, redact_values
from lanline.logs import say
from lanline.tracking.journal.events import encode_number
from lanline.tracking.mlflow.mirror import KEY_TAG
from lanline.tracking.mlflow.store import Store, ask, connect, get_or_create_experiment, get_run, write

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARCHIVE_VERSION = 1
ORIGINAL_ID = "imported_from_run_id"
RUN_TAGS = ("data_generation_run_id", "mlflow.parentRunId", "supersedes", "superseded_by")
EXPERIMENT_TAG = "data_generation_experiment_id"
CHUNK = 1 << 20
BATCH = 900


class ArchivedDataset(TypedDict):
    """A data set that a run reads, as MLflow describes it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    tags: dict[str, str]


class ArchivedRun(TypedDict):
    """A run in ``runs.json``. The id names its folder of artifacts, so it must not be a path."""

    run_id: Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\z")]
    name: str
    experiment: str
    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
    start_time: int
    end_time: int | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[str, float, int, int]]
    datasets: list[ArchivedDataset]


RUNS = TypeAdapter(Annotated[list[ArchivedRun], Field(min_length=1)])


def export_run(store: Store, run_id: str, archive: Path) -> list[str]:
    """Write a run, and the run of the data set that it names if that is still there, to one archive.

    Returns:
        The ids of the runs in it.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: there is no such run.
    """
    from mlflow.exceptions import MlflowException

    client = connect(store)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            runs = [_read_run(client, store, run_id, root)]
            if data_run := runs[0]["tags"].get("data_generation_run_id"):
                if get_run(client, store, data_run):
                    runs.append(_read_run(client, store, data_run, root))
                else:
                    say(f"{store.shown} has no run {data_run} (the data set's) any more: it is not in the archive")
        except MlflowException as error:
            raise UserError(f"{store.shown}: {redact(str(error))}") from None
        (root / "runs.json").write_text(json.dumps(redact_values(runs), indent=1))
        members = sorted(path for path in root.rglob("*") if path.is_file())
        manifest = {path.relative_to(root).as_posix(): _facts(path) for path in members}
        with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("manifest.json", json.dumps({"version": ARCHIVE_VERSION, "members": manifest}, indent=1))
            for name in manifest:
                target.write(root / name, name)
    return [run["run_id"] for run in runs]


def import_archive(store: Store, archive: Path) -> dict[str, str]:
    """Put the runs of an archive into a store. A run that is there already is left as it is.

    Runs get new ids; the tag ``imported_from_run_id`` holds the original one, and links among the runs are
    set to the new ids.

    Returns:
        Original run id to the id in ``store``.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: the file is no archive of lanline, was changed, or has a path that leads outside.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _unpack(Path(archive), root)
        runs = _read_runs(Path(archive), root / "runs.json")
        client = connect(store)
        ids: dict[str, str] = {}
        for run in reversed(runs):  # the data set first: the training names it
            ids[run["run_id"]] = _write_run(client, store, run, root / "artifacts" / run["run_id"], ids)
    return ids


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _read_run(client: MlflowClient, store: Store, run_id: str, root: Path) -> ArchivedRun:
    run = ask(store, client.get_run, run_id)
    experiment = ask(store, client.get_experiment, run.info.experiment_id)
    artifacts = root / "artifacts" / run_id
    artifacts.mkdir(parents=True)
    if ask(store, client.list_artifacts, run_id):
        ask(store, client.download_artifacts, run_id, "", str(artifacts))
    metrics = [
        [point.key, encode_number(point.value), point.timestamp, point.step]
        for key in run.data.metrics
        for point in ask(store, client.get_metric_history, run_id, key)
    ]
    datasets = [
        {**dict(entry.dataset), "tags": {tag.key: tag.value for tag in entry.tags}}
        for entry in run.inputs.dataset_inputs
    ]
    info = run.info
    return {
        "run_id": run_id,
        "name": info.run_name,
        "experiment": experiment.name,
        "status": info.status,
        "start_time": info.start_time,
        "end_time": info.end_time,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": metrics,
        "datasets": datasets,
    }


def _unpack(archive: Path, root: Path) -> None:
    """Check every member of an archive against its manifest while it is unpacked."""
    try:
        with zipfile.ZipFile(archive) as source:
            manifest = json.loads(source.read("manifest.json"))
            if manifest["version"] != ARCHIVE_VERSION:
                raise UserError(
                    f"{archive}: archive version {manifest['version']}, this lanline reads {ARCHIVE_VERSION}"
                )
            members = manifest["members"]
            names = sorted(name for name in source.namelist() if name != "manifest.json")
            if names != sorted(members) or "runs.json" not in members:
                raise UserError(f"{archive} was changed: its members are not those of its manifest")
            for name, facts in members.items():
                _check_path(archive, name)
                _extract(source, name, facts, root / name, archive)
    except OSError as error:
        raise UserError(f"{archive}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{archive} is not an archive of lanline, or is damaged: {error}") from None


def _check_path(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    allowed = name == "runs.json" or path.parts[0] == "artifacts"
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name or not allowed:
        raise UserError(f"{archive}: member {name!r} leads outside the archive; nothing was imported")


def _read_runs(archive: Path, path: Path) -> list[ArchivedRun]:
    """All of ``runs.json``, checked: a manifest that fits does not make it honest."""
    try:
        return RUNS.validate_json(path.read_bytes())
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise UserError(
            f"{archive}: runs.json is not as lanline writes it ({mistakes}); nothing was imported"
        ) from None


def _extract(source: zipfile.ZipFile, name: str, facts: dict[str, Any], target: Path, archive: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open(name) as packed, target.open("wb") as handle:
        while (chunk := packed.read(CHUNK)) and size <= facts["bytes"]:  # no more than was promised
            digest.update(chunk)
            size += len(chunk)
            handle.write(chunk)
    if size != facts["bytes"] or digest.hexdigest() != facts["sha256"]:
        raise UserError(f"{archive}: member {name!r} was changed (its sha256 differs); nothing was imported")


def _write_run(client: MlflowClient, store: Store, run: ArchivedRun, artifacts: Path, ids: dict[str, str]) -> str:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    experiment_id = get_or_create_experiment(client, store, run["experiment"])
    # What goes on elsewhere never ends here; and only an import that was cut off is left as RUNNING.
    status = "KILLED" if run["status"] in ("RUNNING", "SCHEDULED") else run["status"]
    query = f"tags.{ORIGINAL_ID} = '{run['run_id']}'"
    for found in ask(store, client.search_runs, [experiment_id], query):
        if found.info.status == status:
            return found.info.run_id
        write(store, client.delete_run, found.info.run_id)  # an import that was cut off
    tags = {**_imported_tags(client, store, run, ids), ORIGINAL_ID: run["run_id"]}
    name, begin = run["name"], run["start_time"]
    new = write(store, client.create_run, experiment_id, start_time=begin, tags=tags, run_name=name).info.run_id
    params = [Param(key, value) for key, value in run["params"].items()]
    for i in range(0, len(params), 100):
        write(store, client.log_batch, new, params=params[i : i + 100])
    metrics = [Metric(key, float(value), when, step) for key, value, when, step in run["metrics"]]
    for i in range(0, len(metrics), BATCH):
        write(store, client.log_batch, new, metrics=metrics[i : i + BATCH])
    for entry in run["datasets"]:
        inputs = [InputTag(key, value) for key, value in entry.pop("tags").items()]
        write(store, client.log_inputs, new, datasets=[DatasetInput(Dataset(**entry), inputs)])
    if artifacts.is_dir() and any(artifacts.iterdir()):
        write(store, client.log_artifacts, new, str(artifacts))
    if status != run["status"]:
        write(store, client.set_tag, new, "reason", "was still running when it was exported")
    write(store, client.set_terminated, new, status, end_time=run["end_time"])
    return new


def _imported_tags(client: MlflowClient, store: Store, run: ArchivedRun, ids: dict[str, str]) -> dict[str, str]:
    """Tags with the ids of this store; an id that means nothing here is kept as ``original.<tag>``."""
    tags = dict(run["tags"])
    for tag in (*RUN_TAGS, EXPERIMENT_TAG, KEY_TAG):
        if tag in tags:
            tags[f"original.{tag}"] = tags.pop(tag)
    for tag in RUN_TAGS:
        if (there := ids.get(run["tags"].get(tag, ""))) is not None:
            tags[tag] = there
    if (data_run := tags.get("data_generation_run_id")) is not None:
        tags[EXPERIMENT_TAG] = ask(store, client.get_run, data_run).info.experiment_id
    return tags
