"""Sync journals to MLflow: what is not there yet, once, however often it is interrupted.

Beside each journal ``<key>.jsonl`` lies ``<key>.mirror.json`` (`lanline.tracking.journal.position`). It is written
after MLflow has the events, so a mirror that is killed repeats its last step, and every step may be repeated: the run
is found again by its tag ``lanline.key``, and MLflow drops metrics, params, tags and inputs that it has. So a journal
that a power cut shortened is synced from its start again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanline.files import sha256_file
from lanline.locks import locked
from lanline.logs import say
from lanline.tracking.journal.events import (
    Artifact,
    Dataset,
    End,
    Event,
    Links,
    Metrics,
    Params,
    Register,
    Resume,
    Start,
    Tags,
    read_events,
)
from lanline.tracking.journal.position import Position, is_complete, is_of, read_position, write_position
from lanline.tracking.journal.record import resumed_tag
from lanline.tracking.mlflow.registry import register_version
from lanline.tracking.mlflow.store import Store, call, connect, get_or_create_experiment, write
from lanline.tracking.mlflow.tracked import (
    CONTEXT_TAG,
    HASHES_TAG,
    KEY_TAG,
    artifact_hashes,
    find_run,
    get_run,
    runs_with_key,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

BACK = "<"  # a link of this kind is a tag on the other run, with the id of this one
# Limits of MLflow: longer values would be cut silently, larger batches refused.
MAX_METRICS, MAX_PARAMS_AND_TAGS = 900, 90
MAX_PARAM, MAX_TAG = 6000, 8000


def mirror(journal: Path, store: Store) -> Position:
    """Sync what MLflow does not have yet.

    Args:
        journal: path of a ``<key>.jsonl``.
        store: store to write to.

    Raises:
        StoreUnavailable: nothing is lost, call again later.
        UserError: the journal is damaged.
    """
    journal = Path(journal)
    with locked(journal.parent / ".mirror.lock"):
        if is_complete(journal):
            return read_position(journal)
        return _Mirror(journal, connect(store), store).catch_up()


@dataclass
class _Batch:
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def is_full(self) -> bool:
        full = max(len(self.params), len(self.tags)) >= MAX_PARAMS_AND_TAGS
        return full or len(self.metrics) + len(self.params) + len(self.tags) >= MAX_METRICS


class _Mirror:
    def __init__(self, journal: Path, client: MlflowClient, store: Store) -> None:
        self.journal, self.client, self.store = journal, client, store
        self.position = read_position(journal)
        if not is_of(self.position, journal):
            say(f"{journal} has lost lines that MLflow has (a power cut?): syncing it from its start")
            self.position = self.position.model_copy(update={"offset": 0, "end": None})
        self.start: Start | None = None
        self.batch = _Batch()
        self.hashes: dict[str, str] = {}  # of artifacts synced since the last `_save`
        self.created = False  # by this very call: nothing can be in the run that we do not know

    def catch_up(self) -> Position:
        first, _ = next(read_events(self.journal), (None, 0))
        if not isinstance(first, Start):
            return self.position
        self.start = first
        if self.position.run_id is None:
            self._find_or_create(first)
        elif not self._find_again(first):
            return self.position
        end = self.position.offset
        for event, end in read_events(self.journal, self.position.offset):
            self._take(event)
            if self.batch.is_full():
                self._save(end)
        self._save(end)
        self._resolve_links()
        return self.position

    # --- events -------------------------------------------------------------------------------------------
    def _take(self, event: Event) -> None:
        match event:
            case Start():
                self._begin(event)
            case Resume():
                self._resume(event)
            case Params():
                self._params(event)
            case Metrics():
                self._metrics(event)
            case Tags():
                self._tags(event)
            case Links():
                self._links(event.links)
            case Dataset():
                self._dataset(event)
            case Artifact():
                self._artifact(event)
            case Register():
                assert self.position.run_id is not None
                register_version(self.client, self.store, event.name, self.position.run_id, event.folder, event.tags)
            case End():
                self._end(event)

    def _begin(self, event: Start) -> None:
        for key, value in {**event.tags, KEY_TAG: event.key}.items():
            self._tag(key, value)
        replaced = {"supersedes": f"run:{event.supersedes}"} if event.supersedes else {}
        if event.adopts:
            self._write(self.client.update_run, self.position.run_id, status="RUNNING")
        self._links({**event.links, **replaced})

    def _resume(self, event: Resume) -> None:
        self._flush()
        self.position = self.position.model_copy(update={"end": None})
        self._write(self.client.update_run, self.position.run_id, status="RUNNING")
        if "reason" in self._run().data.tags:
            self._write(self.client.delete_tag, self.position.run_id, "reason")
        self._tag("resumed", resumed_tag(event))

    def _params(self, event: Params) -> None:
        for key, value in event.params.items():
            self._room()
            self.batch.params[key] = _cut(value, MAX_PARAM)

    def _metrics(self, event: Metrics) -> None:
        from mlflow.entities import Metric

        for key, value in event.metrics.items():
            self._room()
            self.batch.metrics.append(Metric(key, value, event.time, event.step))

    def _tags(self, event: Tags) -> None:
        for key, value in event.tags.items():
            if key == HASHES_TAG:  # an import: as they were recorded, not as they came
                self.hashes = {}
            self._tag(key, value)

    def _links(self, links: Mapping[str, str]) -> None:
        pending = {**self.position.pending_links, **links}
        self.position = self.position.model_copy(update={"pending_links": pending})

    def _dataset(self, event: Dataset) -> None:
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        described: dict[str, Any] = event.described or {
            "name": event.name,
            "digest": event.digest,
            "source_type": "local" if "://" not in event.source else event.source.split(":")[0],
            "source": json.dumps({"uri": event.source}),
            "profile": json.dumps(event.profile),
        }
        context = {CONTEXT_TAG: event.context} if event.context else {}
        tags = [InputTag(key, value) for key, value in {**context, **event.tags}.items()]
        inputs = [DatasetInput(MlflowDataset(**described), tags)]
        self._write(self.client.log_inputs, self.position.run_id, datasets=inputs)

    def _artifact(self, event: Artifact) -> None:
        path = self.journal.parent / event.path
        if path.is_file() and sha256_file(path) == event.sha256:
            self._write(self.client.log_artifact, self.position.run_id, str(path), event.folder or None)
            self.hashes[event.name] = event.sha256
        else:  # overwritten or removed before MLflow could be reached: never attach another file's content
            self._tag(f"artifact_not_kept.{path.name}", f"sha256 {event.sha256}")

    def _end(self, event: End) -> None:
        assert self.start is not None
        if event.reason:
            self._tag("reason", event.reason)
        self._flush()
        self._resolve_links()
        if event.status == "FINISHED" and self.start.supersedes:
            # Only a run that finished takes the place of the one before it.
            self._links({BACK + "superseded_by": f"run:{self.start.supersedes}"})
        self._write(self.client.set_terminated, self.position.run_id, event.status, end_time=event.time)
        self.position = self.position.model_copy(update={"end": event})

    # --- MLflow -------------------------------------------------------------------------------------------
    def _write(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return write(self.store, function, *args, **kwargs)

    def _tag(self, key: str, value: str) -> None:
        self._room()
        self.batch.tags[key] = _cut(value, MAX_TAG)

    def _room(self) -> None:
        if self.batch.is_full():
            self._flush()

    def _flush(self) -> None:
        from mlflow.entities import Param, RunTag

        batch, self.batch = self.batch, _Batch()
        if batch.params and not self.created:
            # MLflow refuses a whole batch for a param that has another value (--mlflow-run-id).
            there = self._run().data.params
            differing = {key for key, value in batch.params.items() if there.get(key, value) != value}
            if differing:
                batch.tags["params_now"] = _cut(json.dumps({key: batch.params.pop(key) for key in differing}), MAX_TAG)
        if batch.metrics or batch.params or batch.tags:
            params = [Param(key, value) for key, value in batch.params.items()]
            tags = [RunTag(key, value) for key, value in batch.tags.items()]
            self._write(self.client.log_batch, self.position.run_id, batch.metrics, params, tags)

    def _save(self, offset: int) -> None:
        if self.hashes:
            self._tag(HASHES_TAG, json.dumps(_fitting({**artifact_hashes(self._run().data.tags), **self.hashes})))
            self.hashes = {}
        self._flush()
        self.position = self.position.model_copy(update={"offset": offset})
        write_position(self.journal, self.position)

    def _run(self) -> MlflowRun:
        return call(self.store, self.client.get_run, self.position.run_id)

    def _find_or_create(self, start: Start) -> None:
        """The run of this journal's key. It is asked for after it was made, too: MLflow's client repeats a request
        whose answer was lost, and the server then has two."""
        experiment_id = get_or_create_experiment(self.client, self.store, start.experiment)
        found = runs_with_key(self.client, self.store, start.key, [experiment_id])
        if not found:
            # The key is there from the first moment: a mirror killed right after this call finds the run again.
            tags = {KEY_TAG: start.key, "mlflow.user": start.tags.get("mlflow.user", "unknown")}
            create = self.client.create_run
            self._write(create, experiment_id, start_time=start.time, tags=tags, run_name=start.name)
            found = runs_with_key(self.client, self.store, start.key, [experiment_id])
            self.created = True
        for double in found[1:]:
            self._write(self.client.delete_run, double.info.run_id)
        update = {"run_id": found[0].info.run_id, "experiment_id": experiment_id}
        self.position = self.position.model_copy(update=update)
        write_position(self.journal, self.position)

    def _find_again(self, start: Start) -> bool:
        """Whether there is a run to write to. A deleted one is made again only for a new attempt at the work."""
        assert self.position.run_id is not None
        run = get_run(self.client, self.store, self.position.run_id)
        if run is not None and run.info.lifecycle_stage != "deleted":
            return True
        rest = list(read_events(self.journal, self.position.offset))
        if any(isinstance(event, Resume) for event, _ in rest):
            self.position = Position()
            self._find_or_create(start)
            return True
        say(f"{self.journal.stem}: its run was deleted in MLflow and is not recreated")
        self.position = self.position.model_copy(update={"pending_links": {}})
        if rest:
            self.position = self.position.model_copy(update={"offset": rest[-1][1]})
        write_position(self.journal, self.position)
        return False

    def _resolve_links(self) -> None:
        """Give the tags that name another run or experiment their ids, as far as MLflow has them by now."""
        pending = {}
        for tag, target in self.position.pending_links.items():
            kind, name = target.split(":", 1)
            if kind == "run":
                found = find_run(self.client, self.store, name)
            else:
                experiment = call(self.store, self.client.get_experiment_by_name, name)
                found = experiment.experiment_id if experiment else None
            if found and tag.startswith(BACK):
                self._write(self.client.set_tag, found, tag.removeprefix(BACK), self.position.run_id)
            elif found:
                self._write(self.client.set_tag, self.position.run_id, tag, found)
            elif self._may_come(tag, name):
                pending[tag] = target
        if pending != self.position.pending_links:
            self.position = self.position.model_copy(update={"pending_links": pending})
            write_position(self.journal, self.position)

    def _may_come(self, tag: str, key: str) -> bool:
        """Whether a run that MLflow does not have may come: the one that this run replaces may be deleted."""
        if tag not in ("supersedes", BACK + "superseded_by"):
            return True
        older = self.journal.with_name(f"{key}.jsonl")
        return older.exists() and not is_complete(older)


def _fitting(hashes: dict[str, str]) -> dict[str, str]:
    """As many of them as one tag holds (some 70): the others cannot be verified from MLflow alone."""
    while len(json.dumps(hashes)) > MAX_TAG:
        hashes.popitem()
    return hashes


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 6] + " [cut]"
