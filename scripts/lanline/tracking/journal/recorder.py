"""One tracked run while it is being recorded.

The record goes to the journal in ``folder`` first and is complete there; it is synced to MLflow through
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
from typing import Any, Self, TextIO

from lanline.errors import UserError
from lanline.files import redact, sha256_file
from lanline.locks import locked
from lanline.logs import say
from lanline.termination import terminate
from lanline.tracking.journal.endings import ending
from lanline.tracking.journal.events import (
    Artifact,
    Dataset,
    End,
    Links,
    Metrics,
    Params,
    Register,
    Resume,
    Start,
    Tags,
    encode_number,
    journals,
    now,
)
from lanline.tracking.journal.origin import attempts
from lanline.tracking.journal.position import read_position
from lanline.tracking.journal.record import RunRecord, read_run
from lanline.tracking.journal.writer import DIED, Journal, end_if_dead, taken, wait_until_free
from lanline.tracking.mlflow.in_use import mark_in_use
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import MLFLOW_MISSING, Store, StoreUnavailable, mlflow_installed
from lanline.tracking.mlflow.sync import start_follower, sync_earlier

DIGEST_LENGTH = 36  # MLflow's limit
WAIT_FOR_FOLLOWER = 60.0  # seconds
_NAME = re.compile(r"[\w\-. :/]{1,250}")


class RunRecorder:
    """Records a run, in a ``with`` block. By itself it adds to a run that has ended, whose status and times stay as
    they are; `LiveRun` is one that is running.

    Args:
        journal: path of its journal.
        store: to sync to when the block ends, or None.

    Attributes:
        key: unique name of the run, also its tag ``lanline.key`` in MLflow.
        journal: path of its journal.
    """

    resumed = False

    def __init__(self, journal: Path, store: Store | None) -> None:
        self.journal, self.key, self._store = journal, journal.stem, store
        self._params: dict[str, str] = {}
        self._seen: dict[tuple[str, int], float | str] = {}
        self._follower: subprocess.Popen[bytes] | None = None

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
                raise UserError(f"param {name} of run {self.key} is {self._params[name]}; it cannot change to {text}")
        if new := {name: text for name, text in texts.items() if name not in self._params}:
            self._params |= new
            self._writer.append(Params(params=new))

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step (epoch). The same value again at the same step is not doubled."""
        numbers = {checked_name(name): encode_number(value) for name, value in values.items()}
        new = {name: number for name, number in numbers.items() if self._seen.get((name, step)) != number}
        if new:
            self._seen |= {(name, step): number for name, number in new.items()}
            self._writer.append(Metrics(time=now(), step=step, metrics={name: float(new[name]) for name in new}))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._writer.append(Tags(tags={checked_name(name): str(value) for name, value in tags.items()}))

    def link(self, links: Mapping[str, str]) -> None:
        """Record tags whose values are ids that MLflow may only give later.

        Args:
            links: tag name to ``run:<key>`` or ``experiment:<name>``.
        """
        self._writer.append(Links(links=dict(links)))

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
            Dataset(
                name=name,
                digest=digest[:DIGEST_LENGTH],
                source=source,
                context=context,
                tags={"digest": digest, **(tags or {})},
                profile=dict(profile or {}),
            )
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
        self._writer.append(Artifact(path=place, folder=folder, bytes=size, sha256=digest))

    def register(self, name: str, folder: str, tags: Mapping[str, str]) -> None:
        """Record that the network in the artifact ``folder`` is to be a version of the model ``name``: see
        `lanline.tracking.mlflow.registry`."""
        self._writer.append(Register(name=name, folder=folder, tags=dict(tags)))

    # --- its life -----------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._writer.close()
        self._sync()

    def _open(self) -> RunRecord | None:
        """Open the journal for appending; remember what need not be repeated, and return what it has."""
        try:
            self._writer = Journal(self.journal)
        except BlockingIOError:
            raise taken(self.journal) from None
        try:
            run = read_run(self.journal)
        except UserError as error:  # the record is damaged; the work is not
            say(f"{error}. New events are appended to it anyway")
            run = None
        if run:
            self._params = dict(run.params)
            self._seen = {(value.name, value.step): encode_number(value.value) for value in run.history}
        return run

    def _sync(self) -> None:
        if self._store is None:
            return
        try:
            if self._follower is not None:
                self._follower.wait(WAIT_FOR_FOLLOWER)
            mirror(self.journal, self._store)
            sync_earlier(self.journal, self._store)
        except subprocess.TimeoutExpired:
            say(f"MLflow is still receiving {self.journal}; `{self._sync_command}` syncs what is missing")
        except StoreUnavailable as problem:
            say(redact(str(problem)))
            say(f"the whole record is in {self.journal}; `{self._sync_command}` syncs it")
        except UserError as problem:
            say(f"could not sync {self.journal} to MLflow: {problem}")
        except Exception:
            # A bug or refusal on MLflow's side never takes the result of the run away.
            print(redact(traceback.format_exc()), file=sys.stderr)
            say(f"could not sync {self.journal} to MLflow; `{self._sync_command}` retries")

    @property
    def _sync_command(self) -> str:
        """The command that finds this record: `make mlflow-sync` looks in reports/, where the commands do not write."""
        report = self.journal.parent.parent
        in_reports = report.resolve().is_relative_to(Path("reports").resolve())
        return "make mlflow-sync" if in_reports else f"lanline sync {shlex.quote(str(report))}"


class LiveRun(RunRecorder):
    """A run from its start, or its resumption, to its end; made by `lanline.tracking.journal.opening.open_run`.

    Args:
        journal: path of its journal.
        store: to sync to, or None.
        start: its first event.
        params: its first settings.
        resumed: whether it resumes a run that had not finished.
        follow: sync beside the run instead of at its end.
    """

    def __init__(
        self, journal: Path, store: Store | None, start: Start, params: Mapping[str, str], resumed: bool, follow: bool
    ) -> None:
        super().__init__(journal, store)
        self.resumed, self._start, self._start_params, self._follow = resumed, start, params, follow
        self._old_handler: Any = None
        self._in_use: TextIO | None = None

    def __enter__(self) -> Self:
        folder = self.journal.parent.parent
        with locked(self.journal.parent / ".start.lock"):  # of two that start at once, the second sees the first
            wait_until_free(folder)
            for earlier in journals(folder):
                if earlier != self.journal:
                    with suppress(UserError):  # a damaged one is named when it is synced
                        end_if_dead(earlier)
            before = self._open()
        self._in_use = mark_in_use(self._store)
        if self.resumed and before is not None:
            self._resume(before)
        else:
            self._writer.append(self._start)
            self.log_params(self._start_params)
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGTERM, terminate)
        if self._store and not mlflow_installed():
            say(f"{MLFLOW_MISSING}: this run is recorded in {folder} only")
        elif self._store and self._follow:
            self._follower = start_follower(self.journal, self._store)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        status, reason = ending(error)
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM must not tear the end
        self._writer.append(End(status=status, reason=redact(reason), time=now()))
        self._writer.close()
        self._sync()
        if self._in_use is not None:
            self._in_use.close()
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, self._old_handler)

    def _resume(self, before: RunRecord) -> None:
        ended = f"{before.status}: {before.tags.get('reason')}" if before.status != "RUNNING" else DIED
        host = socket.gethostname()
        self._writer.append(Resume(time=now(), after=ended, times=before.resumed + 1, host=host))
        tags = dict(self._start.tags)
        self._writer.append(Tags(tags=tags | attempts(before.jobs, tags)))
        self.link(self._start.links)
        say(f"resuming run {self.key} (previous attempt: {ended})")


def checked_name(name: str) -> str:
    """``name``, of a param, metric or tag. Raises: UserError: MLflow does not allow it."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a param, metric or tag: expected at most 250 letters, digits and _ - . : / space"
        )
    return name
