"""Compare the shards on disk with what is tracked, and with what they claim to be. Nothing trains on data that fail."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lanline.config import Config
from lanline.dataset.inventory import Inventory, TrackedFile
from lanline.dataset.rows import BLOCK_THETAS, block_rows, n_blocks
from lanline.dataset.shards import read_origin, read_shard
from lanline.errors import UserError
from lanline.files import sha256_file
from lanline.models import Model

# Other processors round the last digits of exp and log differently, and float32 keeps seven of them.
LABEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, and why."""

    file: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.reason}"


@dataclass(frozen=True)
class ValidationReport:
    """What was compared and what was found. Data pass when there are no problems."""

    dataset_id: str
    lineage_id: str
    compared_with: str
    files: int
    rows: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        return {"passed": not self.problems, **asdict(self)}


def validate_dataset(
    folder: Path, inventory: Inventory, compared_with: str, config: Config, threads: int = 1
) -> ValidationReport:
    """Check every file of a data set against its inventory and against the model.

    Looked for: missing, extra, changed (sha256) and truncated files, other dtypes or shapes, NaN or infinite values,
    theta outside the bounds, choices that the model does not have, labels that differ from the engine's own when
    one block of each shard is computed again.

    Args:
        folder: where the shards lie.
        inventory: what is tracked.
        compared_with: where the inventory was read, for the report (an MLflow run, or a file).
        config: the run's configuration.
        threads: files that are checked at once.
    """
    tracked = {file.file for file in inventory.files}
    present = {path.name for path in folder.glob("*.safetensors")}
    problems = [
        Problem(name, "extra", "lies in the data folder but is not tracked") for name in sorted(present - tracked)
    ]
    check = partial(_check_file, folder, config, inventory)
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(check, inventory.files):
            problems.extend(found)
    return ValidationReport(
        dataset_id=inventory.dataset_id,
        lineage_id=inventory.lineage_id,
        compared_with=compared_with,
        files=len(inventory.files),
        rows=inventory.rows,
        problems=tuple(problems),
    )


def _check_file(folder: Path, config: Config, inventory: Inventory, tracked: TrackedFile) -> list[Problem]:
    path = folder / tracked.file
    if not path.is_file():
        return [Problem(tracked.file, "missing", f"tracked, but not in {folder}")]
    found = [Problem(tracked.file, kind, reason) for kind, reason in _compare_bytes(path, tracked)]
    try:
        origin = read_origin(path)
        arrays = read_shard(path, ["lan_data", "lan_labels"])
    except UserError as error:
        return [*found, Problem(tracked.file, "unreadable", str(error))]
    if origin["model"] != inventory.model:
        return [
            *found,
            Problem(tracked.file, "model", f"holds {origin['model']}, expected {inventory.model}"),
        ]
    model = config.model(inventory.model)
    shape_problems = list(_compare_shapes(arrays, tracked, model))
    contents = [] if shape_problems else _compare_contents(arrays, origin["shard"], config, model)
    return found + [Problem(tracked.file, kind, reason) for kind, reason in [*shape_problems, *contents]]


def _compare_bytes(path: Path, tracked: TrackedFile) -> Iterator[tuple[str, str]]:
    size = path.stat().st_size
    if size != tracked.bytes:
        kind = "truncated" if size < tracked.bytes else "changed"
        yield kind, f"{size:,} bytes, tracked are {tracked.bytes:,}"
    elif (digest := sha256_file(path)) != tracked.sha256:
        yield "changed", f"sha256 {digest[:12]}..., tracked is {tracked.sha256[:12]}..."


def _compare_shapes(arrays: dict[str, np.ndarray], tracked: TrackedFile, model: Model) -> Iterator[tuple[str, str]]:
    expected = {"lan_data": (tracked.rows, len(model.params) + 2), "lan_labels": (tracked.rows,)}
    for name, shape in expected.items():
        if arrays[name].dtype != np.float32:
            yield "dtype", f"{name} is {arrays[name].dtype}, expected float32"
        if arrays[name].shape != shape:
            yield "shape", f"{name} is {arrays[name].shape}, expected {shape}"


def _compare_contents(
    arrays: dict[str, np.ndarray], shard: int, config: Config, model: Model
) -> Iterator[tuple[str, str]]:
    rows, labels = arrays["lan_data"], arrays["lan_labels"]
    for name, values in arrays.items():
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            yield "not finite", f"{bad:,} values of {name} are NaN or infinite"
    for column, param in enumerate(model.params):
        yield from _outside_bounds(rows, column, param, model)
    allowed = np.asarray(model.choices, np.float32)
    if bad := int(np.count_nonzero(~np.isin(rows[:, -1], allowed))):
        yield "choice", f"{bad:,} rows have a choice other than {', '.join(map(str, model.choices))}"
    if len(rows) == config.data.rows_per_shard:
        yield from _compare_labels(rows, labels, shard, config, model)


def _outside_bounds(rows: np.ndarray, column: int, param: str, model: Model) -> Iterator[tuple[str, str]]:
    lower, upper = model.bounds[param]
    # A few upper bounds are another parameter's value in the same row.
    limit = rows[:, model.params.index(upper)] if isinstance(upper, str) else np.float32(upper)
    values = rows[:, column]
    if bad := int(np.count_nonzero((values < np.float32(lower)) | (values > limit))):
        yield "bounds", f"{bad:,} rows have {param} outside [{lower}, {upper}]"


def _compare_labels(
    rows: np.ndarray, labels: np.ndarray, shard: int, config: Config, model: Model
) -> Iterator[tuple[str, str]]:
    """Compute one block of the shard again, another one for each shard, and compare rows and labels."""
    block = shard % n_blocks(config.data)
    expected = block_rows(model, config.data, config.seed, shard, block)
    start = block * BLOCK_THETAS * config.data.rows_per_theta
    part = slice(start, start + len(expected["lan_labels"]))
    for name, actual in (("rows", rows[part]), ("labels", labels[part])):
        again = expected["lan_data" if name == "rows" else "lan_labels"]
        difference = np.abs(actual - again)
        if bad := int(np.count_nonzero(~(difference <= LABEL_TOLERANCE))):
            yield (
                name,
                f"{bad:,} of {difference.size:,} values differ from the engine's own (block {block} again)",
            )
