"""Bring journals into MLflow: what is not there yet, once, however often it is interrupted.

Beside each journal ``<key>.jsonl`` lies ``<key>.mirror.json`` with the MLflow run id and how many bytes were
brought over. It is written after MLflow has the events, so a mirror that is killed repeats its last step, and
every step may be repeated: the run is found again by its tag ``lanline.key``, and MLflow drops metrics,
params, tags and inputs that it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lanline.files import sha256_file
from lanline.logs import say
from lanline.sidecars import Sidecar
from lanline.tracking.journal.events import Event, read_events
from lanline.tracking.mlflow.registry import register_version
from lanline.tracking.mlflow.store import (
    Store,
    ask,
    connect,
    get_or_create_experiment,
    get_run,
    locked,
    write,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG = "lanline.key"
HASHES_TAG = "lanline.sha256"  # of artifacts as the journal has them: JSON, by their path in the run
BACK = "<"  # a link of this kind is a tag on the other run, with the id of this one
# Limits of MLflow: longer values would be cut silently, larger batches refused.
MAX_METRICS, MAX_PARAMS_AND_TAGS = 900, 90
MAX_PARAM, MAX_TAG = 6000, 8000


class Position(Sidecar):
    """How far a journal has been brought into MLflow."""

    run_id: str | None = None
    experiment_id: str | None = None
    offset: int = 0
    pending_links: dict[str, str] = Field(default_factory=dict)


def position_file(journal: Path) -> Path:
    return Path(journal).with_suffix(".mirror.json")


def read_position(journal: Path) -> Position:
    path = position_file(journal)
    return Position.read(path) if path.exists() else Position()


def is_complete(journal: Path) -> bool:
    """Whether MLflow has everything that is in the journal so far."""
    position = read_position(journal)
    return position.offset == Path(journal).stat().st_size and not position.pending_links


def mirror(journal: Path, store: Store) -> Position:
    """Bring over what MLflow does not have yet.

    Args:
        journal: path of a ``<key>.jsonl``.
        store: store to write to.

    Raises:
        StoreUnavailable: nothing is lost, call again later.
    """
    journal = Path(journal)
    with locked(journal.parent / ".mirror.lock"):
        if is_complete(journal):
            return read_position(journal)
        return _Mirror(journal, connect(store), store).catch_up()


@dataclass
class _Batch:
    metrics: list = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def is_full(self) -> bool:
        full = max(len(self.params), len(self.tags)) >= MAX_PARAMS_AND_TAGS
        return full or len(self.metrics) + len(self.params) + len(self.tags) >= MAX_METRICS


class _Mirror:
    def __init__(self, journal: Path, client: MlflowClient, store: Store) -> None:
        self.journal, self.client, self.store = journal, client, store
        self.position = read_position(journal)
        self.batch = _Batch()
        self.hashes: dict[str, str] = {}  # of artifacts brought over since the last `_save`
        self.created = False  # by this very call: nothing can be in the run that we do not know

    def catch_up(self) -> Position:
        if self.position.run_id is None:
            start = next(read_events(self.journal), None)
            if start is None:
                return self.position
            self._find_or_create(start[0])
        elif not self._find_again():
            return self.position
        end = self.position.offset
        for event, end in read_events(self.journal, self.position.offset):
            handle = getattr(self, f"_on_{event['event']}")
            handle(event)
            if self.batch.is_full():
                self._save(end)
        self._save(end)
        self._resolve_links()
        return self.position

    # --- events -------------------------------------------------------------------------------------------
    def _on_start(self, event: Event) -> None:
        for key, value in {**event["tags"], KEY_TAG: event["key"]}.items():
            self._tag(key, value)
        links = dict(event.get("links", {}))
        if event.get("supersedes"):
            links["supersedes"] = f"run:{event['supersedes']}"
        if event.get("adopts"):
            self._write(self.client.update_run, self.position.run_id, status="RUNNING")
        self._on_links({"links": links})

    def _on_resume(self, event: Event) -> None:
        self._flush()
        self._write(self.client.update_run, self.position.run_id, status="RUNNING")
        if "reason" in ask(self.store, self.client.get_run, self.position.run_id).data.tags:
            self._write(self.client.delete_tag, self.position.run_id, "reason")
        self._tag("resumed", f"{event['times']} time(s), last after {event['after']}")

    def _on_params(self, event: Event) -> None:
        for key, value in event["params"].items():
            self._room()
            self.batch.params[key] = _cut(value, MAX_PARAM)

    def _on_metrics(self, event: Event) -> None:
        from mlflow.entities import Metric

        for key, value in event["metrics"].items():
            self._room()
            self.batch.metrics.append(Metric(key, float(value), event["time"], event["step"]))

    def _on_tags(self, event: Event) -> None:
        for key, value in event["tags"].items():
            self._tag(key, value)

    def _on_links(self, event: Event) -> None:
        self.position = self.position.model_copy(
            update={"pending_links": {**self.position.pending_links, **event["links"]}}
        )

    def _on_dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        source = event["source"]
        dataset = MlflowDataset(
            name=event["name"],
            digest=event["digest"],
            source_type="local" if "://" not in source else source.split(":")[0],
            source=json.dumps({"uri": source}),
            profile=json.dumps(event["profile"]),
        )
        tags = {"mlflow.data.context": event["context"], **event["tags"]}
        tags = [InputTag(key, value) for key, value in tags.items()]
        self._write(self.client.log_inputs, self.position.run_id, datasets=[DatasetInput(dataset, tags)])

    def _on_artifact(self, event: Event) -> None:
        path = self.journal.parent / event["path"]
        if path.is_file() and sha256_file(path) == event["sha256"]:
            self._write(self.client.log_artifact, self.position.run_id, str(path), event["folder"] or None)
            self.hashes["/".join(filter(None, (event["folder"], path.name)))] = event["sha256"]
        else:  # overwritten or removed before MLflow could be reached: never attach another file's content
            self._tag(f"artifact_not_kept.{event['path'].rsplit('/', 1)[-1]}", f"sha256 {event['sha256']}")

    def _on_register(self, event: Event) -> None:
        register_version(self.client, self.store, event["name"], self.position.run_id, event["folder"], event["tags"])

    def _on_end(self, event: Event) -> None:
        if event.get("reason"):
            self._tag("reason", event["reason"])
        self._flush()
        self._resolve_links()
        start, _ = next(read_events(self.journal))
        if event["status"] == "FINISHED" and start.get("supersedes"):
            # Only a run that finished takes the place of the one before it.
            self._on_links({"links": {BACK + "superseded_by": f"run:{start['supersedes']}"}})
        self._write(self.client.set_terminated, self.position.run_id, event["status"], end_time=event["time"])

    # --- MLflow -------------------------------------------------------------------------------------------
    def _write(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        return write(self.store, call, *args, **kwargs)

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
            there = ask(self.store, self.client.get_run, self.position.run_id).data.params
            differing = {key for key, value in batch.params.items() if there.get(key, value) != value}
            if differing:
                batch.tags["params_now"] = _cut(json.dumps({key: batch.params.pop(key) for key in differing}), MAX_TAG)
        if batch.metrics or batch.params or batch.tags:
            params = [Param(key, value) for key, value in batch.params.items()]
            tags = [RunTag(key, value) for key, value in batch.tags.items()]
            self._write(self.client.log_batch, self.position.run_id, batch.metrics, params, tags)

    def _save(self, offset: int) -> None:
        if self.hashes:
            tags = ask(self.store, self.client.get_run, self.position.run_id).data.tags
            self._tag(HASHES_TAG, json.dumps(_fitting({**artifact_hashes(tags), **self.hashes})))
            self.hashes = {}
        self._flush()
        self.position = self.position.model_copy(update={"offset": offset})
        self.position.write(position_file(self.journal))

    def _find_or_create(self, start: Event) -> None:
        experiment_id = get_or_create_experiment(self.client, self.store, start["experiment"])
        run_id = find_run(self.client, self.store, start["key"], [experiment_id])
        if run_id is None:
            # The key is there from the first moment: a mirror killed right after this call finds the run
            # again.
            tags = {KEY_TAG: start["key"], "mlflow.user": start["tags"].get("mlflow.user", "unknown")}
            create = self.client.create_run
            run = self._write(create, experiment_id, start_time=start["time"], tags=tags, run_name=start["name"])
            run_id, self.created = run.info.run_id, True
        self.position = self.position.model_copy(update={"run_id": run_id, "experiment_id": experiment_id})
        self.position.write(position_file(self.journal))

    def _find_again(self) -> bool:
        """Whether there is a run to write to. A deleted one is made anew only for a new attempt at the work."""
        run = get_run(self.client, self.store, self.position.run_id)
        if run is not None and run.info.lifecycle_stage != "deleted":
            return True
        rest = list(read_events(self.journal, self.position.offset))
        if any(event["event"] == "resume" for event, _ in rest):
            self.position = Position()
            self._find_or_create(next(read_events(self.journal))[0])
            return True
        say(f"{self.journal.stem}: its run was deleted in MLflow and is not made again")
        self.position = self.position.model_copy(update={"pending_links": {}})
        if rest:
            self.position = self.position.model_copy(update={"offset": rest[-1][1]})
        self.position.write(position_file(self.journal))
        return False

    def _resolve_links(self) -> None:
        """Give the tags that name another run or experiment their ids, as far as MLflow has them by now."""
        pending = {}
        for tag, target in self.position.pending_links.items():
            kind, name = target.split(":", 1)
            if kind == "run":
                found = find_run(self.client, self.store, name)
            else:
                experiment = ask(self.store, self.client.get_experiment_by_name, name)
                found = experiment.experiment_id if experiment else None
            if found and tag.startswith(BACK):
                self._write(self.client.set_tag, found, tag.removeprefix(BACK), self.position.run_id)
            elif found:
                self._write(self.client.set_tag, self.position.run_id, tag, found)
            elif self._may_come(tag, name):
                pending[tag] = target
        if pending != self.position.pending_links:
            self.position = self.position.model_copy(update={"pending_links": pending})
            self.position.write(position_file(self.journal))

    def _may_come(self, tag: str, key: str) -> bool:
        """Whether a run that MLflow does not have may come: the one that this run replaces may be deleted."""
        if tag not in ("supersedes", BACK + "superseded_by"):
            return True
        older = self.journal.with_name(f"{key}.jsonl")
        return older.exists() and not is_complete(older)


def find_run(client: MlflowClient, store: Store, key: str, experiment_ids: list[str] | None = None) -> str | None:
    """The run of a journal's key. A double, made when a server died while answering, is deleted."""
    from mlflow.entities import ViewType

    if experiment_ids is None:
        experiment_ids = [experiment.experiment_id for experiment in ask(store, client.search_experiments)]
    query = f"tags.`{KEY_TAG}` = '{key}'"
    order = ["attributes.start_time ASC"]
    found = ask(store, client.search_runs, experiment_ids, query, ViewType.ACTIVE_ONLY, order_by=order)
    for double in found[1:]:
        write(store, client.delete_run, double.info.run_id)
    return found[0].info.run_id if found else None


def artifact_hashes(tags: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of a run's artifacts when they were recorded, as far as MLflow has them."""
    return json.loads(tags.get(HASHES_TAG, "{}"))


def _fitting(hashes: dict[str, str]) -> dict[str, str]:
    """As many of them as one tag holds (some 70): the others cannot be verified from MLflow alone."""
    while len(json.dumps(hashes)) > MAX_TAG:
        hashes.popitem()
    return hashes


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 6] + " [cut]"
