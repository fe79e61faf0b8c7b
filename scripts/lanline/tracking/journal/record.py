"""The state of a run, folded from the events of its journal: the one shape in which a recorded run is passed on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from lanline.files import sha256_file
from lanline.tracking.journal.events import (
    Artifact,
    Dataset,
    End,
    Event,
    Links,
    Metrics,
    Params,
    Resume,
    Start,
    Tags,
    read_events,
)


class MetricValue(NamedTuple):
    """A number at a step; the time in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


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

    A run that is RUNNING in its journal may be dead: see `lanline.tracking.journal.writer.is_alive`.

    Attributes:
        key: lanline's own name of the run; None for one that another program recorded.
        run_id: MLflow's id, if it has one.
        store: the MLflow store that it belongs to, without credentials; None with tracking off.
        identity: hash of what determines it.
        supersedes: key of the run whose place it takes.
        links: tags whose value is to be an id of MLflow, as ``run:<key>`` or ``experiment:<name>``.
        history: every number with its step and time.
        datasets: the data sets that it reads.
        files: by their path among the run's artifacts.
        resumed: how often it was resumed.
        jobs: the SLURM jobs that worked on it.
        source: the journal's path, or the store, that this was read from.
    """

    key: str | None
    run_id: str | None
    name: str
    experiment: str
    status: str
    start_time: int
    end_time: int | None = None
    store: str | None = None
    identity: str | None = None
    supersedes: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    history: tuple[MetricValue, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    files: dict[str, RecordedFile] = field(default_factory=dict)
    resumed: int = 0
    jobs: tuple[str, ...] = ()
    source: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """The value of each metric at its highest step."""
        last: dict[str, MetricValue] = {}
        for value in self.history:
            if value.name not in last or value.step >= last[value.name].step:
                last[value.name] = value
        return {name: value.value for name, value in last.items()}


def read_run(journal: Path) -> RunRecord | None:
    """The run of a journal; None if it was killed before its first line.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    return fold((event for event, _ in read_events(journal)), journal)


def fold(events: Iterable[Event], journal: Path) -> RunRecord | None:
    """What the events of a journal make together. Its position in MLflow is not asked: ``run_id`` is None."""
    run, history, datasets = None, [], {}
    for event in events:
        if isinstance(event, Start):
            run = _begin(event, journal)
        elif run is None:
            continue
        elif isinstance(event, Metrics):
            history += [MetricValue(name, value, event.time, event.step) for name, value in event.metrics.items()]
        elif isinstance(event, Dataset):
            datasets[event.digest] = event
        else:
            run = _next(run, event, journal)
    return run and replace(run, history=tuple(history), datasets=tuple(datasets.values()))


def _begin(event: Start, journal: Path) -> RunRecord:
    return RunRecord(
        key=event.key,
        run_id=None,
        name=event.name,
        experiment=event.experiment,
        status="RUNNING",
        start_time=event.time,
        store=event.store,
        identity=event.identity,
        supersedes=event.supersedes,
        tags=dict(event.tags),
        links=dict(event.links),
        jobs=_jobs(event),
        source=short(journal),
    )


def _next(run: RunRecord, event: Event, journal: Path) -> RunRecord:
    """The run after one more event."""
    match event:
        case Params():
            return replace(run, params={**run.params, **event.params})
        case Tags():
            jobs = tuple(dict.fromkeys([*run.jobs, *_jobs(event)]))
            return replace(run, tags={**run.tags, **event.tags}, jobs=jobs)
        case Links():
            return replace(run, links={**run.links, **event.links})
        case Artifact():
            path = (journal.parent / event.path).resolve()
            file = RecordedFile(event.name, path, event.sha256, short(path))
            return replace(run, files={**run.files, event.name: file})
        case Resume():
            tags = {tag: value for tag, value in run.tags.items() if tag != "reason"}
            tags["resumed"] = resumed_tag(event)
            return replace(run, status="RUNNING", end_time=None, resumed=event.times, tags=tags)
        case End():
            reason = {"reason": event.reason} if event.reason else {}
            return replace(run, status=event.status, end_time=event.time, tags={**run.tags, **reason})
    return run  # what is registered is MLflow's affair


def _jobs(event: Start | Tags) -> tuple[str, ...]:
    job = event.tags.get("slurm_job_id")
    return (job,) if job else ()


def resumed_tag(event: Resume) -> str:
    """The tag ``resumed`` of a run."""
    return f"{event.times} time(s), last after {event.after}"


def short(path: Path) -> str:
    """``path`` as seen from the working directory, if it lies in it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
