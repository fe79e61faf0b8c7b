"""The inventory of a data set: each file with its size, rows, sha256 and seed, and the ids that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lanline.errors import UserError
from lanline.files import sha256_json
from lanline.sidecars import ShardSidecar

INVENTORY_VERSION = 1
ID_DIGITS = 16  # 64 bits: a collision among a million data sets has a chance of 3e-8


@dataclass(frozen=True)
class TrackedFile:
    """One file of a data set. ``file`` is a plain name inside the data folder."""

    file: str
    bytes: int
    rows: int
    sha256: str
    seed: int


@dataclass(frozen=True)
class Inventory:
    """What a data set consists of; kept as ``generated_files_inventory.json``, in MLflow and beside the data."""

    model: str
    dataset_id: str
    lineage_id: str
    files: tuple[TrackedFile, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def to_json(self) -> dict[str, Any]:
        return {"inventory_version": INVENTORY_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any, source: str) -> Inventory:
        """Check what was read from ``source`` (named in the message).

        Raises:
            UserError: it is not an inventory, its id is not that of its files, or a file name leads out of the data
                folder.
        """
        try:
            if value["inventory_version"] != INVENTORY_VERSION:
                raise UserError(
                    f"{source}: inventory_version is {value['inventory_version']}, "
                    f"this lanline reads {INVENTORY_VERSION}"
                )
            files = tuple(_tracked(entry) for entry in value["files"])
            inventory = cls(value["model"], value["dataset_id"], value["lineage_id"], files)
        except (KeyError, TypeError) as error:
            raise UserError(f"{source} is not a data set inventory: {error!r}") from None
        for file in files:
            if Path(file.file).name != file.file or file.file in {"", ".", ".."}:
                raise UserError(f"{source}: file name {file.file!r} points outside the data folder")
        if inventory.dataset_id != content_id(files):
            raise UserError(
                f"{source} is labelled data set {inventory.dataset_id}, but its files are {content_id(files)}: "
                "it was changed after it was written"
            )
        return inventory


def _tracked(entry: dict[str, Any]) -> TrackedFile:
    """The checked entry; raises TypeError for one that lacks a field or has it in another type."""
    file = TrackedFile(**entry)
    for name, kind in (("file", str), ("bytes", int), ("rows", int), ("sha256", str), ("seed", int)):
        if not isinstance(getattr(file, name), kind):
            raise TypeError(f"{name} is {getattr(file, name)!r}")
    return file


def build_inventory(records: Iterable[ShardSidecar]) -> Inventory:
    """Inventory of the shards with these records.

    Raises:
        UserError: the records are of different models or recipes: they do not make one data set.
    """
    records = sorted(records, key=lambda record: record.shard)
    for field in ("model", "lineage_id"):
        values = {getattr(record, field) for record in records}
        if len(values) != 1:
            raise UserError(f"the shard records have different values of {field}: {', '.join(sorted(values))}")
    files = tuple(TrackedFile(r.file, r.bytes, r.rows, r.sha256, r.seed) for r in records)
    return Inventory(records[0].model, content_id(files), records[0].lineage_id, files)


def content_id(files: Iterable[TrackedFile]) -> str:
    """The id of a data set: a hash of what its inventory says of each file, in this order."""
    return sha256_json([asdict(file) for file in files])[:ID_DIGITS]


def lineage_id(recipe: Mapping[str, Any]) -> str:
    """The id that is the same in every stage: a hash of the recipe that the data are made by."""
    return sha256_json(recipe)[:ID_DIGITS]
