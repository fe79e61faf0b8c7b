"""One tracked run while it is being recorded.

The record goes to the journal in ``folder`` first and is complete there; MLflow gets it through
`lanline.tracking.mlflow.mirror`, beside the run (``follow=True``, for long ones) or at its end.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from lanline.errors import UserError
from lanline.files import redact, sha256_file
from lanline.logs import say
from lanline.tracking.journal.endings import ending, terminate
from lanline.tracking.journal.events import (
    DIED,
    Event,
    Journal,
    encode_number,
    end_if_dead,
    journals,
    now,
    read_events,
    taken,
    wait_until_free,
)
from lanline.tracking.journal.origin import attempts
from lanline.tracking.mlflow.mirror import mirror, read_position
from lanline.tracking.mlflow.store import (
    MLFLOW_MISSING,
    Store,
    StoreUnavailable,
    locked,
    mlflow_installed,
)
from lanline.tracking.mlflow.sync import bring_earlier, start_follower

DIGEST_LENGTH = 36  # MLflow's limit
WAIT_FOR_MIRROR = 60.0
_NAME = re.compile(r"[\w\-. :/]{1,250}")


class Run:
    """A run that is being recorded; made by `lanline.tracking.journal.opening.open_run`, used in a ``with`` block.

    Attributes:
        key: unique name of the run, also its tag ``lanline.key`` in MLflow.
        journal: path of its journal.
        resumed: whether it goes on with a run that had not finished.
    """

    def __init__(
        self,
        journal: Path,
        store: Store | None,
        follow: bool,
        start: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
        resumed: bool = False,
    ) -> None:
        self.journal, self.key, self.resumed = journal, journal.stem, resumed
        self._store, self._follow, self._start, self._start_params = store, follow, start, params or {}
        self._params: dict[str, str] = {}
        self._seen: dict[tuple[str, int], float | str] = {}
        self._mirror: subprocess.Popen | None = None
        self._old_handler: Any = None

    @property
    def run_id(self) -> str | None:
        """The MLflow run, or None as long as MLflow has not been reached (or tracking is off)."""
        return read_position(self.journal).run_id

    @property
    def last_step(self) -> int:
        """The highest step of any metric so far; 0 before the first."""
        return max((step for _, step in self._seen), default=0)

    @property
    def experiment_id(self) -> str | None:
        return read_position(self.journal).experiment_id

    # --- what is recorded ---------------------------------------------------------------------------------
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; a value that was recorded does not change.

        Raises:
            UserError: a name that MLflow does not allow, or another value for a recorded name.
        """
        texts = {checked_name(name): str(value) for name, value in params.items()}
        for name, text in texts.items():
            if self._params.get(name, text) != text:
                raise UserError(f"param {name} of run {self.key} is {self._params[name]}; it cannot become {text}")
        if new := {name: text for name, text in texts.items() if name not in self._params}:
            self._params |= new
            self._writer.append("params", params=new)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step (epoch). The same value again at the same step is not doubled."""
        numbers = {checked_name(name): encode_number(value) for name, value in values.items()}
        new = {name: number for name, number in numbers.items() if self._seen.get((name, step)) != number}
        if new:
            self._seen |= {(name, step): number for name, number in new.items()}
            self._writer.append("metrics", time=now(), step=step, metrics=new)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._writer.append("tags", tags={checked_name(name): str(value) for name, value in tags.items()})

    def link(self, links: Mapping[str, str]) -> None:
        """Record tags whose values are ids that MLflow may only give later.

        Args:
            links: tag name to ``run:<key>`` or ``experiment:<name>``.
        """
        self._writer.append("links", links=dict(links))

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: str,
        context: str,
        tags: Mapping[str, str] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a data set that the run reads.

        Args:
            name: name of the data set.
            digest: hash of its content; MLflow takes 36 characters of it, the whole becomes the tag
                ``digest``.
            source: folder or URI.
            context: what it is for: training, validation, evaluation.
            tags: more tags of the input.
            profile: counts to show, e.g. {"rows": 6_000_000}.
        """
        self._writer.append(
            "dataset",
            name=name,
            digest=digest[:DIGEST_LENGTH],
            source=source,
            context=context,
            tags={"digest": digest, **(tags or {})},
            profile=dict(profile or {}),
        )

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or every file below a folder; MLflow gets a copy under ``folder``.

        The file itself stays where it is: the journal keeps its place and sha256.
        """
        path = Path(path)
        if path.is_dir():
            for child in sorted(child for child in path.rglob("*") if child.is_file()):
                below = child.parent.relative_to(path).as_posix()
                self.log_artifact(child, "/".join(part for part in (folder, below) if part not in ("", ".")))
            return
        place = Path(os.path.relpath(path, self.journal.parent)).as_posix()
        size, digest = path.stat().st_size, sha256_file(path)
        self._writer.append("artifact", path=place, folder=folder, bytes=size, sha256=digest)

    def register(self, name: str, folder: str, tags: Mapping[str, str]) -> None:
        """Record that the network in the artifact ``folder`` is to be a version of the model ``name``: see
        `lanline.tracking.mlflow.registry`."""
        self._writer.append("register", name=name, folder=folder, tags=dict(tags))

    # --- its life -----------------------------------------------------------------------------------------
    def __enter__(self) -> Run:
        with locked(self.journal.parent / ".start.lock"):  # of two that start at once, the second sees the first
            wait_until_free(self.journal.parent.parent)
            for earlier in journals(self.journal.parent.parent):
                if earlier != self.journal:
                    with suppress(UserError):  # a damaged one is named when it is brought over
                        end_if_dead(earlier)
            events = self._open_journal()
        if self.resumed:
            self._resume(events)
        else:
            self._writer.append("start", **self._start)
            self.log_params(self._start_params)
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGTERM, terminate)
        if self._store and not mlflow_installed():
            say(f"{MLFLOW_MISSING}: this run is recorded in {self.journal.parent.parent} only")
        elif self._store and self._follow:
            self._mirror = start_follower(self.journal, self._store)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        status, reason = ending(error)
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM must not tear the end
        self._writer.append("end", status=status, reason=redact(reason), time=now())
        self._writer.close()
        if self._store:
            self._bring_over()
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, self._old_handler)

    def _open_journal(self) -> list[Event]:
        """Open the journal for appending. Gives what is in it already, and remembers what need not be
        repeated."""
        try:
            self._writer = Journal(self.journal)
        except BlockingIOError:
            raise taken(self.journal) from None
        events = [event for event, _ in read_events(self.journal)]
        for event in events:
            if event["event"] == "params":
                self._params |= event["params"]
            elif event["event"] == "metrics":
                self._seen |= {(name, event["step"]): number for name, number in event["metrics"].items()}
        return events

    def _resume(self, events: list[Event]) -> None:
        last = [event for event in events if event["event"] in ("start", "resume", "end")][-1]
        ended = f"{last['status']}: {last.get('reason')}" if last["event"] == "end" else DIED
        times = 1 + sum(event["event"] == "resume" for event in events)
        self._writer.append("resume", time=now(), after=ended, times=times, host=socket.gethostname())
        self._writer.append("tags", tags=self._start["tags"] | attempts(events, self._start["tags"]))
        self.link(self._start["links"])
        say(f"goes on with run {self.key}, which had ended: {ended}")

    def _bring_over(self) -> None:
        try:
            if self._mirror is not None:
                self._mirror.wait(WAIT_FOR_MIRROR)
            mirror(self.journal, self._store)
            bring_earlier(self.journal, self._store)
        except subprocess.TimeoutExpired:
            say(f"MLflow is still taking {self.journal}; `{self._sync}` brings over what is missing")
        except StoreUnavailable as problem:
            say(redact(str(problem)))
            say(f"the whole record is in {self.journal}; `{self._sync}` brings it over")
        except Exception:
            # A bug or refusal on MLflow's side never takes the result of the run away.
            print(redact(traceback.format_exc()), file=sys.stderr)
            say(f"MLflow did not take the record {self.journal}; `{self._sync}` tries again")

    @property
    def _sync(self) -> str:
        """The command that finds this record: `make mlflow-sync` looks in reports/, where the commands do not write."""
        report = self.journal.parent.parent
        in_reports = report.resolve().is_relative_to(Path("reports").resolve())
        return "make mlflow-sync" if in_reports else f"lanline sync {shlex.quote(str(report))}"


def checked_name(name: str) -> str:
    """``name``, of a param, metric or tag. Raises: UserError: MLflow does not allow it."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a param, metric or tag: at most 250 of letters, digits and _ - . : / space"
        )
    return name
