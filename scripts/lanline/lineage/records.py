"""Reading back what was recorded of a run: from its journal on disk or, where there is none, from MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lanline.errors import UserError
from lanline.files import sha256_file
from lanline.tracking.journal.events import FOLDER, journals
from lanline.tracking.journal.position import read_position
from lanline.tracking.journal.record import RecordedFile, RunRecord, read_run
from lanline.tracking.mlflow.store import Store, StoreUnavailable, call, connect_to_read
from lanline.tracking.mlflow.tracked import KEY_TAG, experiment_ids, quoted, read_tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        self.folders, self.store = list(folders), store
        self.notes: list[str] = []
        self._copies, self._tried = copies, False
        self._client: MlflowClient | None = None
        self._tracked: dict[str | None, RunRecord | None] = {}

    def by_key(self, key: str) -> RunRecord | None:
        """The run with lanline's own key, which may come from a file that anybody wrote."""
        for journal in self._journals():
            if journal.stem == key:
                return read_journal(journal)
        return self._search(f"tags.`{KEY_TAG}` = {{}}", key)

    def by_run_id(self, run_id: str) -> RunRecord | None:
        """The run with MLflow's id."""
        from_disk = (journal for journal in self._journals() if read_position(journal).run_id == run_id)
        if (journal := next(from_disk, None)) is not None:
            return read_journal(journal)
        return self._search("attributes.run_id = {}", run_id)

    def of_dataset(self, dataset_id: str) -> RunRecord | None:
        """The newest finished run that made a data set."""
        wanted = {"stage": "data-generation", "dataset_id": dataset_id}
        for journal in sorted(self._journals(), key=lambda path: path.name, reverse=True):
            run = self._read(journal)
            if run and run.status == "FINISHED" and wanted.items() <= run.tags.items():
                return read_journal(journal)
        tags = " and ".join(f"tags.{tag} = {{}}" for tag in wanted)
        return self._search(f"{tags} and attributes.status = 'FINISHED'", *wanted.values())

    def as_recorded(self, run: RunRecord, artifact: str) -> RecordedFile | None:
        """A file of a run with the content that was recorded: MLflow's copy where a later run wrote over it.

        None if there is no such file, or neither has that content any more.
        """
        recorded = run.files.get(artifact)
        if recorded is None or recorded.is_as_recorded():
            return recorded
        if run.key not in self._tracked:
            self._tracked[run.key] = self._search(f"tags.`{KEY_TAG}` = {{}}", run.key) if run.key else None
        tracked = self._tracked[run.key]
        copy = tracked.files.get(artifact) if tracked else None
        if copy is None or not copy.path.is_file() or sha256_file(copy.path) != recorded.sha256:
            self.notes.append(f"{recorded.shown} differs from what {run.name} recorded, and MLflow has no copy of it")
            return None
        self.notes.append(f"{recorded.shown} differs from what {run.name} recorded; using MLflow's copy")
        return copy

    def _read(self, journal: Path) -> RunRecord | None:
        """A run; a damaged journal becomes a note."""
        try:
            return read_run(journal)
        except UserError as error:
            self.notes.append(str(error))
            return None

    def _journals(self) -> Iterator[Path]:
        for folder in self.folders:
            for found in sorted(folder.rglob(FOLDER)):
                yield from journals(found.parent)

    def _search(self, query: str, *values: str) -> RunRecord | None:
        """The newest run that a query finds, with these values at its {}."""
        try:
            query = query.format(*map(quoted, values))
        except UserError as error:
            self.notes.append(str(error))
            return None
        client = self._connected()
        if client is None or self.store is None:
            return None
        experiments = experiment_ids(client, self.store)
        order = ["attributes.start_time DESC"]
        found = call(self.store, client.search_runs, experiments, query, order_by=order, max_results=1)
        return read_tracked(client, self.store, found[0], self._copies / found[0].info.run_id) if found else None

    def _connected(self) -> MlflowClient | None:
        if self.store is not None and not self._tried:
            self._tried = True
            try:
                self._client = connect_to_read(self.store)  # a question makes no store
            except StoreUnavailable as error:
                self.notes.append(str(error))
        return self._client


@contextmanager
def open_records(folders: Iterable[Path], store: Store | None) -> Iterator[Records]:
    """`Records`, with a folder for copies that is removed at the end."""
    with TemporaryDirectory(prefix="lanline-") as copies:
        yield Records(dict.fromkeys(folder for folder in folders if folder.is_dir()), store, Path(copies))


def read_journal(journal: Path) -> RunRecord:
    """The record of one journal, with what its folder and MLflow's index beside it add.

    Raises:
        UserError: it cannot be read, or has no beginning.
    """
    run = read_run(journal)
    if run is None:
        raise UserError(f"{journal} is empty: its run was killed before it started")
    later = {"superseded_by": by} if (by := _superseded_by(journal, run)) else {}
    return replace(run, run_id=read_position(journal).run_id, tags={**run.tags, **later})


def _superseded_by(journal: Path, run: RunRecord) -> str | None:
    """Key of the finished run that took the place of a journal's run."""
    for path in journals(journal.parent.parent):
        with suppress(UserError):  # a damaged one
            later = read_run(path)
            if later and later.supersedes == run.key and later.status == "FINISHED":
                return later.key
    return None
