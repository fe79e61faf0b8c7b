"""What files of training data hold, by their hashes: their ids, and whether they are still what was validated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lanline.dataset.inventory import ID_DIGITS, TrackedFile, content_id
from lanline.dataset.recipe import read_recipe
from lanline.errors import UserError, reason
from lanline.files import sha256_file, sha256_json
from lanline.sidecars import DatasetSidecar

SHARD_SUFFIX = ".safetensors"


def content_ids(files: Sequence[Path]) -> tuple[str, str]:
    """Data set and lineage id of files without a record; for lanline's shards the ones that their record would have.

    Raises:
        UserError: a file cannot be read, or its header does not say how it was made.
    """
    digests = {path.name: sha256_file(path) for path in files}
    if any(path.suffix != SHARD_SUFFIX for path in files):
        dataset_id = sha256_json(digests)[:ID_DIGITS]
        return dataset_id, dataset_id
    tracked, lineages = [], set()
    for path in files:
        recipe = read_recipe(path)
        rows = recipe.data.rows_per_shard
        tracked.append(TrackedFile(path.name, path.stat().st_size, rows, digests[path.name], recipe.seed))
        lineages.add(recipe.lineage_id)
    dataset_id = content_id(tracked)
    return dataset_id, lineages.pop() if len(lineages) == 1 else dataset_id


def validated(dataset: DatasetSidecar, shards: Sequence[Path], report: Path) -> DatasetSidecar:
    """The data set with the problems that its validation accepted, after a look at whether it is still the same.

    Args:
        dataset: that was validated.
        shards: all of its files, which are hashed again.
        report: validation.json.

    Raises:
        UserError: the shards were changed after they were validated, or the report is of other data or damaged.
    """
    try:
        found = json.loads(report.read_text())
        passed, of, problems = found["passed"], found["dataset_id"], found["problems"]
        accepted = tuple(f"{problem['file']}: {problem['kind']}: {problem['reason']}" for problem in problems)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{report} is not a validation report: {reason(error)}") from None
    if of != dataset.dataset_id or passed == bool(accepted):
        raise UserError(f"{report} is of data set {of}, expected {dataset.dataset_id}: validate the data again")
    ordered = sorted(shards, key=lambda path: path.name)
    if (now := content_ids(ordered)[0]) != dataset.dataset_id:
        raise UserError(
            f"the files in {dataset.folder} were changed after they were validated: they are now data set {now}, "
            f"{dataset.dataset_id} was validated. Nothing was trained; `snakemake -R generate_shards` regenerates them"
        )
    return dataset.model_copy(update={"accepted_problems": accepted})
