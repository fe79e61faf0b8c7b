"""Reading back what was recorded of a run: from its journal on disk or, where there is none, from MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lanline.errors import UserError
from lanline.files import redact, sha256_file
from lanline.tracking.journal.events import FOLDER, Event, journals, read_events, summary
from lanline.tracking.mlflow.mirror import KEY_TAG, artifact_hashes, read_position
from lanline.tracking.mlflow.store import Store, StoreUnavailable, ask, connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun


@dataclass(frozen=True)
class RecordedFile:
    """A file as it was when it was recorded.

    Attributes:
        artifact: its path among the run's artifacts.
        path: where it lies, or a copy of what MLflow holds.
        sha256: its hash when it was recorded; None if only MLflow has the file, and no hash of it.
        shown: the path to tell people.
    """

    artifact: str
    path: Path
    sha256: str | None
    shown: str

    def is_as_recorded(self) -> bool:
        """Whether the file is there, with the recorded hash if there is one."""
        return self.path.is_file() and self.sha256 in (None, sha256_file(self.path))


@dataclass(frozen=True)
class RunRecord:
    """A run as recorded. Times are milliseconds since 1970; ``status`` is RUNNING, FINISHED, FAILED or KILLED.

    Attributes:
        links: tags whose value is to be an id of MLflow, as ``run:<key>`` or ``experiment:<name>``.
        datasets: its data sets, each with name, digest, source, context, tags and profile.
        files: by their path among the run's artifacts.
        source: the journal's path, or the store, that this was read from.
    """

    key: str | None
    run_id: str | None
    name: str
    experiment: str
    status: str
    start_time: int
    end_time: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    datasets: tuple[dict[str, Any], ...] = ()
    files: dict[str, RecordedFile] = field(default_factory=dict)
    source: str = ""


class Records:
    """Where records are looked for: folders with journals first, then a store, which is opened only if need be.

    Args:
        folders: searched with all that is below them.
        store: None to leave MLflow out.
        copies: folder for copies of artifacts that only MLflow has.

    Attributes:
        notes: what was in the way of looking, for the reader.
    """

    def __init__(self, folders: Iterable[Path], store: Store | None, copies: Path) -> None:
        self.folders, self.store, self.notes = list(folders), store, []
        self._copies, self._client, self._tried = copies, None, False
        self._tracked: dict[str | None, RunRecord | None] = {}

    def by_key(self, key: str) -> RunRecord | None:
        """The run with lanline's own key."""
        for journal in self._journals():
            if journal.stem == key:
                return read_journal(journal)
        return self._search(f"tags.`{KEY_TAG}` = '{key}'")

    def by_run_id(self, run_id: str) -> RunRecord | None:
        """The run with MLflow's id."""
        from_disk = (journal for journal in self._journals() if read_position(journal).run_id == run_id)
        if (journal := next(from_disk, None)) is not None:
            return read_journal(journal)
        return self._search(f"attributes.run_id = '{run_id}'")

    def of_dataset(self, dataset_id: str) -> RunRecord | None:
        """The newest finished run that made a data set."""
        wanted = {"stage": "data-generation", "dataset_id": dataset_id}
        for journal in sorted(self._journals(), key=lambda path: path.name, reverse=True):
            start = summary(journal)
            if start.get("status") == "FINISHED" and wanted.items() <= start["tags"].items():
                return read_journal(journal)
        tags = " and ".join(f"tags.{tag} = '{value}'" for tag, value in wanted.items())
        return self._search(f"{tags} and attributes.status = 'FINISHED'")

    def as_recorded(self, run: RunRecord, artifact: str) -> RecordedFile | None:
        """A file of a run with the content that was recorded: MLflow's copy where a later run wrote over it.

        None if there is no such file, or neither has that content any more.
        """
        recorded = run.files.get(artifact)
        if recorded is None or recorded.is_as_recorded():
            return recorded
        if run.key not in self._tracked:
            self._tracked[run.key] = self._search(f"tags.`{KEY_TAG}` = '{run.key}'") if run.key else None
        tracked = self._tracked[run.key]
        copy = tracked.files.get(artifact) if tracked else None
        if copy is None or not copy.path.is_file() or sha256_file(copy.path) != recorded.sha256:
            self.notes.append(f"{recorded.shown} is not as {run.name} recorded it, and MLflow has no copy of it")
            return None
        self.notes.append(f"{recorded.shown} is not as {run.name} recorded it; MLflow's copy of it is used")
        return copy

    def _journals(self) -> Iterator[Path]:
        for folder in self.folders:
            for found in sorted(folder.rglob(FOLDER)):
                yield from journals(found.parent)

    def _search(self, query: str) -> RunRecord | None:
        client = self._connected()
        if client is None:
            return None
        experiments = [each.experiment_id for each in ask(self.store, client.search_experiments)]
        order = ["attributes.start_time DESC"]
        found = ask(self.store, client.search_runs, experiments, query, order_by=order, max_results=1)
        return read_mlflow(client, self.store, found[0], self._copies) if found else None

    def _connected(self) -> MlflowClient | None:
        if self.store is not None and not self._tried:
            self._tried = True
            if self.store.database and not self.store.database.exists():  # a question makes no store
                self.notes.append(f"there is no MLflow store {self.store.shown}")
            else:
                try:
                    self._client = connect(self.store)
                except StoreUnavailable as error:
                    self.notes.append(str(error))
        return self._client


@contextmanager
def open_records(folders: Iterable[Path], store: Store | None) -> Iterator[Records]:
    """`Records`, with a folder for copies that is removed at the end."""
    with TemporaryDirectory(prefix="lanline-") as copies:
        yield Records(dict.fromkeys(folder for folder in folders if folder.is_dir()), store, Path(copies))


def read_journal(journal: Path) -> RunRecord:
    """The record of one journal.

    Raises:
        UserError: it cannot be read, or has no beginning.
    """
    state = summary(journal)
    if not state:
        raise UserError(f"{journal} is empty: its run was killed before it began")
    params: dict[str, str] = {}
    tags, links = dict(state["tags"]), dict(state.get("links", {}))
    metrics: dict[str, tuple[int, float]] = {}
    datasets: list[Event] = []
    files: dict[str, RecordedFile] = {}
    end = None
    for event, _ in read_events(journal):
        kind = event["event"]
        if kind == "params":
            params |= event["params"]
        elif kind == "tags":
            tags |= event["tags"]
        elif kind == "links":
            links |= event["links"]
        elif kind == "metrics":
            for name, value in event["metrics"].items():
                if event["step"] >= metrics.get(name, (0, 0.0))[0]:
                    metrics[name] = event["step"], float(value)
        elif kind == "dataset":
            datasets.append({key: event[key] for key in ("name", "digest", "source", "context", "tags", "profile")})
        elif kind == "artifact":
            path = (journal.parent / event["path"]).resolve()
            artifact = "/".join(filter(None, (event["folder"], path.name)))
            files[artifact] = RecordedFile(artifact, path, event["sha256"], _short(path))
        elif kind == "resume":
            tags["resumed"] = f"{event['times']} time(s), last after {event['after']}"
            tags.pop("reason", None)
        elif kind == "end":
            end = event["time"]
            tags |= {"reason": event["reason"]} if event.get("reason") else {}
    if later := _superseded_by(journal, state["key"]):
        tags["superseded_by"] = later
    return RunRecord(
        key=state["key"],
        run_id=read_position(journal).run_id,
        name=state["name"],
        experiment=state["experiment"],
        status=state["status"],
        start_time=state["time"],
        end_time=end if state["status"] != "RUNNING" else None,
        params=params,
        tags=tags,
        metrics={name: value for name, (_, value) in metrics.items()},
        links=links,
        datasets=tuple({dataset["digest"]: dataset for dataset in datasets}.values()),
        files=files,
        source=_short(journal),
    )


def read_mlflow(client: MlflowClient, store: Store, run: Any, copies: Path) -> RunRecord:
    """The record of a run of MLflow; its artifacts are copied below ``copies``."""
    run_id, tags = run.info.run_id, dict(run.data.tags)
    folder = copies / run_id
    folder.mkdir(exist_ok=True)
    files: dict[str, RecordedFile] = {}
    for item in ask(store, client.list_artifacts, run_id):
        ask(store, client.download_artifacts, run_id, item.path, str(folder))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    hashes = artifact_hashes(tags)  # not of the copies: the store's files may have been changed
    for artifact in sorted(there | hashes.keys()):
        shown = f"runs:/{run_id}/{artifact}"
        files[artifact] = RecordedFile(artifact, folder / artifact, hashes.get(artifact), shown)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return RunRecord(
        key=tags.get(KEY_TAG),
        run_id=run_id,
        name=run.info.run_name,
        experiment=ask(store, client.get_experiment, run.info.experiment_id).name,
        status=run.info.status,
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        params=dict(run.data.params),
        tags=tags,
        metrics=dict(run.data.metrics),
        datasets=tuple(
            {
                "name": each.dataset.name,
                "digest": each.dataset.digest,
                "source": redact(each.dataset.source),
                "tags": {tag.key: tag.value for tag in each.tags},
            }
            for each in inputs
        ),
        files=files,
        source=f"MLflow {store.shown}",
    )


def _superseded_by(journal: Path, key: str) -> str | None:
    """Key of the finished run that took the place of a journal's run."""
    for later in journals(journal.parent.parent):
        state = summary(later)
        if state.get("supersedes") == key and state["status"] == "FINISHED":
            return state["key"]
    return None


def _short(path: Path) -> str:
    """``path`` as seen from the working directory, if it lies in it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def unfinished_run(client: MlflowClient, store: Store, run_id: str) -> MlflowRun:
    """The MLflow run of that id, if it may be gone on with.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: the run is unknown, deleted, or has finished.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = ask(store, client.get_run, run_id)
    except MlflowException as error:
        raise UserError(f"MLflow run {run_id} cannot be gone on with: {redact(str(error))}") from None
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"MLflow run {run_id} was deleted: restore it in {store.shown}, or start without its id")
    if run.info.status == "FINISHED":
        raise UserError(f"MLflow run {run_id} has finished, and is not written to again: start without its id")
    return run
