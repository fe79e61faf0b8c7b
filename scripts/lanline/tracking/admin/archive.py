"""Runs on their way from one store to another: an archive to share, and MLflow's old file store migrated to
SQLite.

An archive is a zip file: ``manifest.json`` (sha256 and bytes of every other member), ``runs.json`` (the run
and the run of its data set, with params, tags, data set inputs, and metrics with steps and times) and
``artifacts/<run id>/...``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic refuses that of Python 3.11

from lanline.errors import UserError
from lanline.files import atomic_path, redact, redact_values
from lanline.logs import say
from lanline.tracking.journal.events import (
    FOLDER,
    Artifact,
    Dataset,
    End,
    Event,
    Metrics,
    Params,
    Start,
    Tags,
    encode_number,
    now,
)
from lanline.tracking.journal.writer import Journal
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import Store, call, connect, get_or_create_experiment, write
from lanline.tracking.mlflow.tracked import (
    CONTEXT_TAG,
    HASHES_TAG,
    KEY_TAG,
    get_run,
    read_tracked,
    runs_with_key,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARCHIVE_VERSION = 1
ORIGINAL_ID = "imported_from_run_id"
RUN_TAGS = ("data_generation_run_id", "mlflow.parentRunId", "supersedes", "superseded_by")
EXPERIMENT_TAG = "data_generation_experiment_id"
CHUNK = 1 << 20


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
    """The form of a run in ``runs.json``. The id names its folder of artifacts, so it must not be a path."""

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
            runs = [_archived(client, store, run_id, root)]
            if data_run := runs[0]["tags"].get("data_generation_run_id"):
                if get_run(client, store, data_run):
                    runs.append(_archived(client, store, data_run, root))
                else:
                    say(f"{store.shown} no longer has run {data_run} (the data set's): it is not in the archive")
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
    """Put the runs of an archive into a store. A run that already exists is left as it is.

    Runs get new ids; the tag ``imported_from_run_id`` holds the original one, and links among the runs are
    set to the new ids.

    Returns:
        Original run id to the id in ``store``.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: the file is not a lanline archive, was changed, or has a path that points outside.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _unpack(Path(archive), root)
        runs = _read_runs(Path(archive), root / "runs.json")
        client = connect(store)
        ids: dict[str, str] = {}
        for run in reversed(runs):  # the data set first: the training names it
            ids[run["run_id"]] = _import_run(client, store, run, ids, root)
    return ids


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _archived(client: MlflowClient, store: Store, run_id: str, root: Path) -> dict[str, Any]:
    """A run as it goes into ``runs.json``; its artifacts go below ``root``."""
    run = read_tracked(client, store, call(store, client.get_run, run_id), root / "artifacts" / run_id)
    context = [{CONTEXT_TAG: each.context} if each.context else {} for each in run.datasets]
    datasets = [{**(each.described or {}), "tags": {**context[i], **each.tags}} for i, each in enumerate(run.datasets)]
    return {
        "run_id": run_id,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "params": run.params,
        "tags": run.tags,
        "metrics": [(each.name, encode_number(each.value), each.time, each.step) for each in run.history],
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
                raise UserError(f"{archive} was changed: its members do not match its manifest")
            for name, facts in members.items():
                _check_path(archive, name)
                _extract(source, name, facts, root / name, archive)
    except OSError as error:
        raise UserError(f"{archive}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{archive} is not a lanline archive, or is damaged: {error}") from None


def _check_path(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    allowed = name == "runs.json" or path.parts[0] == "artifacts"
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name or not allowed:
        raise UserError(f"{archive}: member {name!r} points outside the archive; nothing was imported")


def _read_runs(archive: Path, path: Path) -> list[ArchivedRun]:
    """All of ``runs.json``, checked: a manifest that fits does not make it honest."""
    try:
        return RUNS.validate_json(path.read_bytes())
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise UserError(f"{archive}: runs.json is not valid ({mistakes}); nothing was imported") from None


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


def _import_run(client: MlflowClient, store: Store, run: ArchivedRun, ids: dict[str, str], root: Path) -> str:
    """Write the journal of a run beside its unpacked artifacts, and mirror it as any other.

    Its key is made from the original id, so that an interrupted import is resumed.
    """
    from mlflow.exceptions import MlflowException

    experiment_id = get_or_create_experiment(client, store, run["experiment"])
    # What is still running elsewhere never ends here; and only an import that was cut off is left as RUNNING.
    status = "KILLED" if run["status"] in ("RUNNING", "SCHEDULED") else run["status"]
    query = f"tags.{ORIGINAL_ID} = '{run['run_id']}'"
    for found in call(store, client.search_runs, [experiment_id], query):
        if found.info.status == status:
            return found.info.run_id
        if KEY_TAG not in found.data.tags:
            write(store, client.delete_run, found.info.run_id)  # of an earlier lanline that was cut off
    journal = root / FOLDER / f"imported-{run['run_id']}.jsonl"
    tags = {**_imported_tags(client, store, run, ids), ORIGINAL_ID: run["run_id"]}
    with Journal(journal) as writer:
        for event in _events(run, journal, tags, status, root / "artifacts" / run["run_id"]):
            writer.append(event)
    try:
        run_id = mirror(journal, store).run_id
    except MlflowException as error:
        for refused in runs_with_key(client, store, journal.stem, [experiment_id]):
            write(store, client.delete_run, refused.info.run_id)
        raise UserError(f"run {run['run_id']} of the archive: {store.shown} refused it: {redact(str(error))}") from None
    assert run_id is not None
    return run_id


def _events(run: ArchivedRun, journal: Path, tags: dict[str, str], status: str, artifacts: Path) -> Iterator[Event]:
    """An archived run as the events of a journal."""
    yield Start(
        key=journal.stem,
        name=run["name"],
        experiment=run["experiment"],
        store=None,
        time=run["start_time"],
        identity=run["run_id"],
        tags={tag: value for tag, value in tags.items() if tag != HASHES_TAG},
    )
    yield Params(params=run["params"])
    points: dict[tuple[int, int], list[dict[str, float]]] = {}
    for name, value, when, step in run["metrics"]:
        parts = points.setdefault((when, step), [])
        if not parts or name in parts[-1]:
            parts.append({})
        parts[-1][name] = value
    for (when, step), parts in points.items():
        for metrics in parts:
            yield Metrics(time=when, step=step, metrics=metrics)
    for entry in run["datasets"]:
        described: dict[str, Any] = {key: value for key, value in entry.items() if key != "tags"}
        name, digest, source = entry["name"], entry["digest"], entry["source"]
        yield Dataset(name=name, digest=digest, source=source, tags=entry["tags"], described=described)
    for path in sorted(path for path in artifacts.rglob("*") if path.is_file()):
        place = Path(os.path.relpath(path, journal.parent)).as_posix()
        below = path.parent.relative_to(artifacts).as_posix()
        facts = _facts(path)
        yield Artifact(path=place, folder="" if below == "." else below, bytes=facts["bytes"], sha256=facts["sha256"])
    # The hashes as they were recorded: those of the files that came would speak for a file that was changed before.
    yield Tags(tags={HASHES_TAG: tags.get(HASHES_TAG, "{}")})
    reason = "was still running when it was exported" if status != run["status"] else None
    yield End(status=status, reason=reason, time=run["end_time"] or now())


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
        tags[EXPERIMENT_TAG] = call(store, client.get_run, data_run).info.experiment_id
    return tags
