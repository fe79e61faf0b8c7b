"""Compare the shards on disk with what is tracked, and with what they claim to be. Nothing trains on data that fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lanline.config import Config
from lanline.dataset.inventory import Inventory, TrackedFile
from lanline.dataset.made_with import with_versions
from lanline.dataset.problems import Problem
from lanline.dataset.reading import open_shard, read_rows
from lanline.dataset.rows import BLOCK_THETAS, block_rows, n_blocks, shard_shapes
from lanline.dataset.shards import read_origin
from lanline.errors import UserError
from lanline.files import sha256_file
from lanline.models import Model
from lanline.theta import bounds_at

# Other processors round the last digits of exp and log differently, and float32 keeps seven of them.
LABEL_TOLERANCE = 1e-3
CHECKED_ROWS = 200_000  # that are in memory at once


@dataclass(frozen=True)
class ValidationReport:
    """What was compared and what was found. Data pass when there are no problems; notes do no harm."""

    dataset_id: str
    lineage_id: str
    compared_with: str
    files: int
    rows: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"passed": not self.problems, **asdict(self)}


def validate_dataset(
    folder: Path, inventory: Inventory, compared_with: str, config: Config, threads: int = 1
) -> ValidationReport:
    """Check every file of a data set against its inventory and against the model.

    Looked for: missing, extra, changed (sha256) and truncated files, other dtypes or shapes, NaN or infinite values,
    theta outside the bounds, choices that the model does not have, probabilities outside [0, 1], rows and labels that
    differ from the engine's own when one block of each shard is computed again.

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
        Problem(name, "extra", "lies in the data folder but is not tracked; if data.shards was lowered, remove it")
        for name in sorted(present - tracked)
    ]
    check = partial(_check_file, folder, config, inventory)
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(check, inventory.files):
            problems.extend(found)
    told, notes = with_versions(folder, inventory.files, problems)
    return ValidationReport(
        dataset_id=inventory.dataset_id,
        lineage_id=inventory.lineage_id,
        compared_with=compared_with,
        files=len(inventory.files),
        rows=inventory.rows,
        problems=told,
        notes=notes,
    )


def _check_file(folder: Path, config: Config, inventory: Inventory, tracked: TrackedFile) -> list[Problem]:
    path = folder / tracked.file
    if not path.is_file():
        return [Problem(tracked.file, "missing", f"tracked, but not in {folder}")]
    found = list(_compare_bytes(path, tracked))
    try:
        found += _compare_arrays(path, config, inventory.model)
    except UserError as error:
        found.append(("unreadable", str(error)))
    return [Problem(tracked.file, kind, reason) for kind, reason in found]


def _compare_bytes(path: Path, tracked: TrackedFile) -> Iterator[tuple[str, str]]:
    size = path.stat().st_size
    if size != tracked.bytes:
        kind = "truncated" if size < tracked.bytes else "changed"
        yield kind, f"{size:,} bytes, tracked are {tracked.bytes:,}"
    elif (digest := sha256_file(path)) != tracked.sha256:
        yield "changed", f"sha256 {digest[:12]}..., tracked is {tracked.sha256[:12]}..."


def _compare_arrays(path: Path, config: Config, model_name: str) -> list[tuple[str, str]]:
    """What is wrong inside a shard, read in pieces.

    Raises:
        UserError: the file cannot be read as a shard.
    """
    origin = read_origin(path)
    if origin["model"] != model_name:
        return [("model", f"holds {origin['model']}, expected {model_name}")]
    model = config.model(model_name)
    shapes = shard_shapes(model, config.data)
    with open_shard(path) as file:
        if wrong := list(_compare_shapes(file, shapes)):
            return wrong
    counts: Counter[tuple[str, str]] = Counter()
    for name, (n_rows, *_) in shapes.items():
        for start in range(0, n_rows, CHECKED_ROWS):
            (values,) = read_rows(path, [name], start, min(start + CHECKED_ROWS, n_rows))
            counts.update(_count_wrong(name, values, model))
    found = [(kind, f"{n:,} {reason}") for (kind, reason), n in counts.items() if n]
    return found + list(_compare_block(path, origin["shard"], config, model))


def _compare_shapes(file: Any, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, str]]:
    if missing := sorted(set(shapes) - set(file.keys())):
        yield "shape", f"has no array {', '.join(missing)}; it has {', '.join(file.keys())}"
        return
    for name, shape in shapes.items():
        stored = file.get_slice(name)
        if stored.get_dtype() != "F32":
            yield "dtype", f"{name} is {stored.get_dtype()}, expected F32"
        if tuple(stored.get_shape()) != shape:
            yield "shape", f"{name} is {tuple(stored.get_shape())}, expected {shape}"


def _count_wrong(name: str, values: np.ndarray, model: Model) -> dict[tuple[str, str], int]:
    """How many of some values or rows of an array are impossible, by kind and reason."""
    wrong = {("not finite", f"values of {name} are NaN or infinite"): ~np.isfinite(values)}
    if name.endswith("_data"):
        for column, param in enumerate(model.params):
            lower, upper = (np.asarray(bound, np.float32) for bound in bounds_at(model, param, values))
            outside = (values[:, column] < lower) | (values[:, column] > upper)
            wrong["bounds", f"rows of {name} have {param} outside {list(model.bounds[param])}"] = outside
    if name == "lan_data":
        allowed = ", ".join(map(str, model.choices))
        wrong["choice", f"rows have a choice other than {allowed}"] = ~np.isin(values[:, -1], model.choices)
    elif name.endswith("_labels") and name != "lan_labels":
        wrong["probability", f"values of {name} are not in [0, 1]"] = (values < 0) | (values > 1)
    return {key: int(np.count_nonzero(rows)) for key, rows in wrong.items()}


def _compare_block(path: Path, shard: int, config: Config, model: Model) -> Iterator[tuple[str, str]]:
    """Compute one block of the shard again, another one for each shard, and compare rows and labels."""
    block = shard % n_blocks(config.data)
    for name, again in block_rows(model, config.data, config.seed, shard, block).items():
        per_theta = config.data.rows_per_theta if name.startswith("lan_") else 1
        start = block * BLOCK_THETAS * per_theta
        (stored,) = read_rows(path, [name], start, start + len(again))
        difference = np.abs(stored - again)
        if bad := int(np.count_nonzero(~(difference <= LABEL_TOLERANCE))):
            kind = "labels" if name.endswith("_labels") else "rows"
            yield kind, f"{bad:,} of {difference.size:,} values of {name} differ from the engine's own (block {block})"
