"""Which versions of libraries made a shard, where they are not the ones that are installed now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lanline.dataset.inventory import TrackedFile
from lanline.dataset.problems import Problem
from lanline.errors import UserError
from lanline.sidecars import ShardSidecar
from lanline.versions import version_changes

COMPUTED = ("rows", "labels")  # kinds of problems: values that differ when they are computed again


def with_versions(
    folder: Path, files: Iterable[TrackedFile], problems: Iterable[Problem]
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Problems that other versions may have caused name them; shards that are the same all the same get a note.

    Args:
        folder: where the shards lie, and their records.
        files: of the data set.
        problems: what was found in it.

    Returns:
        The problems, in the same order; the notes.
    """
    changes = {file.file: _changes(folder / file.file) for file in files}
    told = tuple(
        replace(problem, reason=f"{problem.reason}; made with {changes[problem.file]}")
        if problem.kind in COMPUTED and changes.get(problem.file)
        else problem
        for problem in problems
    )
    wrong = {problem.file for problem in told}
    made = Counter(change for file, change in changes.items() if change and file not in wrong)
    return told, tuple(f"{n} shard(s) made with {change}: the recomputed blocks agree" for change, n in made.items())


def _changes(shard: Path) -> str:
    """Versions in the record of a shard that are others now; empty without a record, which validation does not need."""
    try:
        return version_changes(ShardSidecar.read(shard.with_suffix(".json")).versions)
    except UserError:
        return ""
