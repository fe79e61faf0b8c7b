"""Compare the shards on disk with what is tracked, and with what they claim to be. Nothing trains on data that fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lanline.config import Config, Data
from lanline.dataset.engine_checks import compare_block, compare_every_block
from lanline.dataset.inventory import Inventory, TrackedFile, content_id
from lanline.dataset.made_with import with_versions
from lanline.dataset.problems import Problem
from lanline.dataset.reading import open_shard
from lanline.dataset.recipe import Recipe, read_recipe
from lanline.dataset.row_checks import EARLIEST_RT, Limits, Scan, compare_files, scan_rows
from lanline.dataset.rows import shard_shapes
from lanline.errors import UserError
from lanline.files import sha256_file


@dataclass(frozen=True)
class ValidationReport:
    """What was compared and what was found. Data pass when there are no problems; others may be accepted. Notes do no
    harm."""

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
    theta outside the bounds, choices, response times, labels and probabilities that the model cannot have, rows that
    are there more than once, other settings or another seed in the header than the configuration has, rows and labels
    that differ from the engine's own when one block of each shard is computed again, and labels that do at one theta
    of every block.

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
    if inventory.dataset_id != content_id(inventory.files):
        problems.append(
            Problem(compared_with, "inventory", f"its id does not match its files ({content_id(inventory.files)})")
        )
    check = partial(_check_file, folder, config, inventory)
    scans: dict[Path, Scan] = {}
    with ThreadPoolExecutor(threads) as pool:
        for file, (found, scan) in zip(inventory.files, pool.map(check, inventory.files), strict=True):
            problems.extend(found)
            scans[folder / file.file] = scan
    held_out = [folder / file.file for file in inventory.files][: config.data.n_validation_shards]
    problems.extend(compare_files(scans, held_out))
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


def _check_file(folder: Path, config: Config, inventory: Inventory, tracked: TrackedFile) -> tuple[list[Problem], Scan]:
    path, scan = folder / tracked.file, Scan()
    if not path.is_file():
        return [Problem(tracked.file, "missing", f"tracked, but not in {folder}")], scan
    found = list(_compare_bytes(path, tracked))
    try:
        recipe = read_recipe(path)
        asked = config.data_recipe(inventory.model)
        if wrong := list(compare_recipes(recipe.values, asked, "the configuration has")):
            found += wrong
        else:
            content, scan = check_shard(path, recipe)
            found += content
    except UserError as error:
        found.append(("unreadable", str(error)))
    return [Problem(tracked.file, kind, reason) for kind, reason in found], scan


def _compare_bytes(path: Path, tracked: TrackedFile) -> Iterator[tuple[str, str]]:
    size = path.stat().st_size
    if size != tracked.bytes:
        kind = "truncated" if size < tracked.bytes else "changed"
        yield kind, f"{size:,} bytes, tracked as {tracked.bytes:,}"
    elif (digest := sha256_file(path)) != tracked.sha256:
        yield "changed", f"sha256 {digest[:12]}..., tracked as {tracked.sha256[:12]}..."


def compare_recipes(recipe: Mapping[str, Any], other: Mapping[str, Any], whose: str) -> Iterator[tuple[str, str]]:
    """What the header of a shard says of its making, and what another one or the configuration says."""
    if recipe["model"] != other["model"]:
        yield "model", f"holds {recipe['model']}, expected {other['model']}"
        return
    defaults = Data().model_dump(mode="json")  # settings that are younger than the shard
    for key in sorted(recipe.keys() | other.keys()):
        mine, theirs = (values.get(key, defaults.get(key)) for values in (recipe, other))
        if mine != theirs:
            yield "recipe", f"was made with {key} {mine}, {whose} {theirs}"


def check_shard(path: Path, recipe: Recipe, again: bool = True) -> tuple[list[tuple[str, str]], Scan]:
    """What is wrong inside one of lanline's shards, by kind and reason.

    Args:
        path: the shard.
        recipe: what its header says of its making.
        again: whether to compute a block again too.

    Raises:
        UserError: the file cannot be read as a shard.
    """
    shapes = shard_shapes(recipe.model, recipe.data)
    with open_shard(path) as file:
        if wrong := list(_compare_shapes(file, shapes)):
            return wrong, Scan()
    limits = Limits(recipe.model, recipe.data.floor, max(recipe.data.max_t, -EARLIEST_RT))
    scan = scan_rows(path, limits, list(shapes))
    found = list(scan.problems)
    if not any(kind == "not finite" for kind, _ in found):
        found += compare_block(path, recipe) if again else ()
        found += compare_every_block(path, recipe)
    return found, scan


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
