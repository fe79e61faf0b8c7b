"""The lines of a journal: the record of one run on disk, complete whatever becomes of MLflow.

A run's folder has ``journal/<key>.jsonl``; the keys sort by time, the last one is the current run of that
folder. Each line is one event, of a type below. Times are milliseconds since 1970, as in MLflow. What the events
make together is folded in one place, `lanline.tracking.journal.record`.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from lanline.errors import UserError
from lanline.files import redact_values

FORMAT_VERSION = 1
FOLDER = "journal"


def encode_number(value: float) -> float | str:
    """JSON has no NaN and no infinity; they are written as text that ``float`` reads."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


Number = Annotated[float, PlainSerializer(encode_number)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)


class Start(_Event):
    """The first line.

    Attributes:
        store: the MLflow store without credentials; None with tracking off.
        identity: hash of what determines the run; only a run of the same one resumes it.
        supersedes: key of the run whose place this one takes once it has finished.
        links: see `Links`.
        adopts: the status of the existing MLflow run that this one continues.
    """

    event: Literal["start"] = "start"
    version: int = FORMAT_VERSION
    key: str
    name: str
    experiment: str
    store: str | None
    time: int
    identity: str
    supersedes: str | None = None
    links: dict[str, str] = {}
    tags: dict[str, str] = {}
    adopts: str | None = None


class Resume(_Event):
    """Another attempt at a run that had not finished: after what ending, and how many there were with this one."""

    event: Literal["resume"] = "resume"
    time: int
    after: str
    times: int
    host: str


class Params(_Event):
    """Settings; a value that was recorded does not change."""

    event: Literal["params"] = "params"
    params: dict[str, str]


class Metrics(_Event):
    """Numbers at a step (epoch)."""

    event: Literal["metrics"] = "metrics"
    time: int
    step: int
    metrics: dict[str, Number]


class Tags(_Event):
    event: Literal["tags"] = "tags"
    tags: dict[str, str]


class Links(_Event):
    """Tags whose value is an id that MLflow may only give later: ``run:<key>`` or ``experiment:<name>``."""

    event: Literal["links"] = "links"
    links: dict[str, str]


class Dataset(_Event):
    """A data set that the run reads; ``described`` is MLflow's own description of one that another program recorded."""

    event: Literal["dataset"] = "dataset"
    name: str
    digest: str
    source: str
    context: str | None = None
    tags: dict[str, str] = {}
    profile: dict[str, Any] = {}
    described: dict[str, str | None] | None = None


class Artifact(_Event):
    """A file, where it lies as seen from the journal's folder; ``folder`` is its folder among the run's artifacts."""

    event: Literal["artifact"] = "artifact"
    path: str
    folder: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Path among the run's artifacts."""
        return "/".join(filter(None, (self.folder, self.path.rsplit("/", 1)[-1])))


class Register(_Event):
    """The network in the artifact ``folder`` is to be a version of the model ``name``."""

    event: Literal["register"] = "register"
    name: str
    folder: str
    tags: dict[str, str]


class End(_Event):
    event: Literal["end"] = "end"
    status: str
    reason: str | None = None
    time: int


Event = Annotated[
    Start | Resume | Params | Metrics | Tags | Links | Dataset | Artifact | Register | End,
    Field(discriminator="event"),
]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


def to_line(event: Event) -> str:
    """An event as a line of a journal. Credentials of URIs are cut out of whatever it holds."""
    return json.dumps(redact_values(event.model_dump()), allow_nan=False) + "\n"


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Events from byte ``offset`` on, each with the offset after it; a line that is still being written is
    left out.

    Raises:
        UserError: the file cannot be read, or has a line that is no event other than one torn by a crash.
    """
    try:
        with Path(path).open("rb") as handle:
            handle.seek(offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                if line.strip():
                    yield _parse(path, offset, line), offset + len(line)
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _parse(path: Path, offset: int, line: bytes) -> Event:
    try:
        event = _EVENTS.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        what = " ".join([*map(str, first["loc"]), first["msg"]])
        number = Path(path).read_bytes()[:offset].count(b"\n") + 1
        raise UserError(
            f"{path} is not a lanline journal, or is damaged, in line {number}: {what}. To repair it, remove "
            "that line; or move the file out of the folder"
        ) from None
    if isinstance(event, Start) and event.version > FORMAT_VERSION:
        raise UserError(
            f"{path} was written by a newer lanline (journal format {event.version}, this one reads {FORMAT_VERSION}): "
            "update lanline"
        )
    return event


def journals(folder: Path) -> list[Path]:
    """Journals of the runs that wrote their report to ``folder``, oldest first."""
    return sorted((Path(folder) / FOLDER).glob("*.jsonl"))


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_key(earlier: str | None = None) -> str:
    """Name of a new run, unique everywhere, sorted by time, and after the key ``earlier`` even if the clock went
    back."""
    seconds, milliseconds = divmod(now(), 1000)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f"{milliseconds:03d}"
    if earlier and stamp <= (before := earlier.partition("-")[0]):
        stamp = _next(before)
    return f"{stamp}-{secrets.token_hex(6)}"


def _next(stamp: str) -> str:
    """The stamp a millisecond later; that of a key of some other form with an end that sorts after it."""
    date, separator, digits = stamp.partition("T")
    if separator and digits.isdecimal() and int(digits) + 1 < 10 ** len(digits):
        return f"{date}T{int(digits) + 1:0{len(digits)}d}"
    return f"{stamp}z"
