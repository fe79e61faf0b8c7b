"""Where a training command gets its data from, in the three modes of docs/data-modes.md.

MLflow-first: an experiment's record names the folder. Validation: the same with a given folder, which must hold every
recorded file. Traditional: a folder alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanline.dataset.content import content_ids
from lanline.dataset.foreign import SUFFIXES, model_of
from lanline.dataset.inventory import ID_DIGITS, Inventory
from lanline.errors import UserError
from lanline.files import sha256_file, sha256_json
from lanline.logs import say
from lanline.sidecars import DatasetSidecar
from lanline.tracking.mlflow.dataset_runs import DatasetRun, find_dataset_runs, read_inventory
from lanline.tracking.mlflow.store import Store

DATA_SUFFIXES = (".safetensors", *SUFFIXES)
SHOWN = 20  # names in a message


@dataclass(frozen=True)
class DataOptions:
    """The options of `lanline train` that say where the data are.

    Attributes:
        folder: of --training-data-folder.
        experiment_id: of --data-generation-experiment-id.
        dataset_id: of --dataset-id, or its first digits.
        accept_problems: of --accept-data-problems.
    """

    folder: Path | None
    experiment_id: str | None
    dataset_id: str | None
    accept_problems: bool = False


@dataclass(frozen=True)
class DataIds:
    """The ids of a data set: of its content, and of its recipe."""

    dataset_id: str
    lineage_id: str


@dataclass(frozen=True)
class DataFile:
    """One file that is recorded; ssm-simulators records no hash."""

    name: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class RecordedData:
    """One data set in MLflow: a run of lanline, or all runs of ssm-simulators' ``generate`` into one folder.

    ``run`` is the newest of them.
    """

    ids: DataIds
    model: str | None
    folder: Path
    files: tuple[DataFile, ...]
    experiment_id: str
    run: DatasetRun

    def __str__(self) -> str:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.run.start_time / 1000))
        return f"{self.ids.dataset_id}  {self.model or '?'}, {len(self.files)} files, {day}, in {self.folder}"


@dataclass(frozen=True)
class Source:
    """The files that may be used, by name.

    Attributes:
        folder: where they lie.
        files: the files.
        recorded: the record that they agree with; None in traditional mode.
        tracking_uri: of the store with the record, without credentials.
    """

    folder: Path
    files: tuple[Path, ...]
    recorded: RecordedData | None = None
    tracking_uri: str | None = None

    @property
    def model(self) -> str | None:
        """The model that the data say they are of."""
        return (self.recorded and self.recorded.model) or model_of(self.files[0])

    def ids(self, used: Sequence[Path]) -> DataIds:
        """The recorded ids, or those of the content of the files that are ``used``."""
        return self.recorded.ids if self.recorded else DataIds(*content_ids(used))

    def dataset(self, model: str, ids: DataIds, files: int, rows: int) -> DatasetSidecar:
        """The data set that a training uses: so many files and rows of it."""
        recorded = self.recorded
        return DatasetSidecar(
            model=model,
            dataset_id=ids.dataset_id,
            lineage_id=ids.lineage_id,
            folder=str(self.folder),
            files=files,
            rows=rows,
            tracking_uri=self.tracking_uri,
            experiment_id=recorded.experiment_id if recorded else None,
            experiment_name="",
            run_id=recorded.run.run_id if recorded else None,
            tracking_key=recorded.run.key if recorded else None,
        )


def find_data(wanted: DataOptions, store: Store | None) -> Source:
    """The files to train on.

    Args:
        wanted: folder, experiment, or both.
        store: where the experiment is.

    Raises:
        UserError: there is neither folder nor experiment; the experiment, the data set or the folder cannot be found;
            files are missing or differ from the record.
        StoreUnavailable: the store is unreachable, or MLflow is not installed.
    """
    if wanted.experiment_id is None or store is None:
        if wanted.dataset_id is not None:
            raise UserError("--dataset-id selects a data set of an experiment: add --data-generation-experiment-id")
        if wanted.folder is None:
            raise UserError(
                "no training data: pass --training-data-folder, or --data-generation-experiment-id, whose record in "
                "MLflow names the folder"
            )
        return Source(wanted.folder, _files_in(wanted.folder))
    recorded = _pick(recorded_data(store, wanted.experiment_id), wanted, store)
    folder = wanted.folder or recorded.folder
    if wanted.folder is None and not folder.is_dir():
        raise UserError(
            f"MLflow says that data set {recorded.ids.dataset_id} is in {folder}, which does not exist (moved, or on "
            "another machine?): pass the folder with --training-data-folder"
        )
    return Source(folder, _checked_files(folder, recorded), recorded, store.shown)


def recorded_data(store: Store, experiment_id: str) -> list[RecordedData]:
    """The data sets that an experiment has on record, newest first. Raises as `find_data` does."""
    own: list[RecordedData] = []
    foreign: dict[str, list[tuple[DatasetRun, list[DataFile]]]] = {}
    for run in find_dataset_runs(store, experiment_id):
        try:
            inventory = read_inventory(store, run.run_id)
        except UserError as error:
            say(f"skipped: {error}")
            continue
        source = f"the inventory of MLflow run {run.run_id}"
        if "inventory_version" in inventory:
            own.append(_own(experiment_id, run, Inventory.from_json(inventory, source)))
        else:
            foreign.setdefault(run.folder, []).append((run, _foreign_files(inventory, source)))
    merged = [_foreign(experiment_id, folder, runs) for folder, runs in foreign.items()]
    return sorted(own + merged, key=lambda data: data.run.start_time, reverse=True)


def _own(experiment_id: str, run: DatasetRun, inventory: Inventory) -> RecordedData:
    files = tuple(DataFile(file.file, file.bytes, file.sha256) for file in inventory.files)
    return RecordedData(
        ids=DataIds(inventory.dataset_id, inventory.lineage_id),
        model=inventory.model,
        folder=Path(run.folder).absolute(),
        files=files,
        experiment_id=experiment_id,
        run=run,
    )


def _foreign(experiment_id: str, folder: str, runs: list[tuple[DatasetRun, list[DataFile]]]) -> RecordedData:
    """ssm-simulators' data are made by many runs into one folder; together they are the data set."""
    files = {file.name: file for _, part in runs for file in part}
    ordered = tuple(files[name] for name in sorted(files))
    dataset_id = sha256_json([[file.name, file.bytes] for file in ordered])[:ID_DIGITS]
    newest = max((run for run, _ in runs), key=lambda run: run.start_time)
    return RecordedData(
        ids=DataIds(dataset_id, dataset_id),
        model=newest.model,
        folder=Path(folder).absolute(),
        files=ordered,
        experiment_id=experiment_id,
        run=newest,
    )


def _foreign_files(inventory: Any, source: str) -> list[DataFile]:
    try:
        files = [DataFile(str(file["filename"]), int(file["size_bytes"]), None) for file in inventory["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} is not an inventory of training data: {error!r}") from None
    for file in files:
        if Path(file.name).name != file.name or file.name in ("", ".", ".."):
            raise UserError(f"{source}: file name {file.name!r} points outside the data folder")
    return files


def _pick(found: list[RecordedData], wanted: DataOptions, store: Store) -> RecordedData:
    experiment_id, dataset_id = wanted.experiment_id, wanted.dataset_id
    if not found:
        raise UserError(f"experiment {experiment_id} in {store.shown} has no finished run with a data set")
    chosen = [data for data in found if data.ids.dataset_id.startswith(dataset_id or "")]
    if len(chosen) == 1:
        return chosen[0]
    listed = "\n".join(f"  {data}" for data in found)
    if not chosen:
        raise UserError(f"--dataset-id {dataset_id}: experiment {experiment_id} has only\n{listed}")
    raise UserError(f"experiment {experiment_id} has {len(chosen)} data sets; choose one with --dataset-id:\n{listed}")


def _files_in(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise UserError(f"the folder of training data, {folder}, does not exist")
    files = sorted(path for path in folder.iterdir() if path.suffix in DATA_SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{folder} has no training data (files ending in {', '.join(DATA_SUFFIXES)})")
    return tuple(files)


def _checked_files(folder: Path, recorded: RecordedData) -> tuple[Path, ...]:
    """The recorded files, all of which must be in the folder; others are named and left alone."""
    if not folder.is_dir():
        raise UserError(f"the folder of training data, {folder}, does not exist")
    missing, differing = [], []
    for file in recorded.files:
        path = folder / file.name
        if not path.is_file():
            missing.append(file.name)
        elif path.stat().st_size != file.bytes:
            differing.append(f"{file.name} ({path.stat().st_size:,} bytes, recorded as {file.bytes:,})")
        elif file.sha256 and sha256_file(path) != file.sha256:
            differing.append(f"{file.name} (different sha256)")
    if missing or differing:
        whole = f"{len(recorded.files)} files that MLflow has on record for data set {recorded.ids.dataset_id}"
        lines = [f"{folder} does not hold the {whole}:"]
        lines += _listed("missing", missing) + _listed("different", differing)
        raise UserError("\n".join(lines))
    tracked = {file.name for file in recorded.files}
    present = {path.name for path in folder.iterdir() if path.suffix in DATA_SUFFIXES}
    if extra := sorted(present - tracked):
        say("\n".join([f"in {folder} but not on record, so not used:", *_listed("extra", extra)]))
    how = "by content" if all(file.sha256 for file in recorded.files) else "by name and size"
    say(f"all {len(tracked)} recorded files are in {folder} (compared {how})")
    return tuple(folder / name for name in sorted(tracked))


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    lines = [f"  {kind}: {name}" for name in names[:SHOWN]]
    return lines + ([f"  {kind}: {len(names) - SHOWN} more"] if len(names) > SHOWN else [])
