"""What the commands look at before they train: the same as the workflow's validation, whoever made the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lanline.dataset.engine_checks import compare_foreign
from lanline.dataset.problems import Problem, refuse_unless_accepted
from lanline.dataset.recipe import ForeignOrigin, Recipe, foreign_origin, read_recipe
from lanline.dataset.row_checks import Limits, Scan, compare_files, scan_rows
from lanline.dataset.shards import read_origin
from lanline.dataset.validation import check_shard, compare_recipes
from lanline.engines import resolve_engine
from lanline.errors import UserError

SIMULATED_AGAIN = 3  # files of simulated labels of which a block is computed again: that takes seconds


def check_training_data(
    training: Sequence[Path], validation: Sequence[Path], network_type: str, model: str, accept: bool
) -> tuple[str, ...]:
    """Look at all that a training is given, before its first epoch.

    Args:
        training: shards to train on, those made of pickles among them.
        validation: shards to validate on.
        network_type: of the network.
        model: its name.
        accept: whether to train although something is wrong.

    Returns:
        The accepted problems.

    Raises:
        UserError: something is wrong and not accepted; the message lists it.
    """
    files = sorted({*training, *validation})
    problems: list[Problem] = []
    scans: dict[Path, Scan] = {}
    recipes: dict[Path, Any] = {}
    simulated = 0
    for path in files:
        try:
            origin = read_origin(path)
            made: Recipe | ForeignOrigin = foreign_origin(origin, model) if "from" in origin else read_recipe(path)
            if isinstance(made, Recipe):
                recipes[path] = made.values
                simulated += resolve_engine(made.model, made.data) == "simulation"
                found, scans[path] = check_shard(path, made, again=simulated <= SIMULATED_AGAIN)
            else:
                recipes[path] = {"model": model, **{key: getattr(made.data, key) for key in ("delta_t", "max_t")}}
                found, scans[path] = _check_foreign(path, made, network_type)
        except UserError as error:
            found = [("unreadable", str(error))]
        problems += [Problem(_name(path), kind, reason) for kind, reason in found]
    problems += _compare_with_first(recipes)
    problems += compare_files(scans, validation)
    return refuse_unless_accepted(problems, files[0].parent, accept)


def _name(path: Path) -> str:
    return path.name.removesuffix(".safetensors") if ".pickle." in path.name or ".pkl." in path.name else path.name


def _check_foreign(path: Path, made: ForeignOrigin, network_type: str) -> tuple[list[tuple[str, str]], Scan]:
    # The estimate of ssm-simulators draws response times beyond the time limit too.
    limits = Limits(made.model, made.data.floor, 2 * made.data.max_t)
    scan = scan_rows(path, limits, [f"{network_type}_data", f"{network_type}_labels"])
    found = [*scan.problems, *(("labels", reason) for reason in made.contradictions)]
    if not found:  # where rows are impossible, that says more than labels that do not fit them
        found += compare_foreign(path, made, network_type)
    return found, scan


def _compare_with_first(recipes: dict[Path, Any]) -> list[Problem]:
    """One data set has one recipe."""
    problems = []
    (first, expected), *others = recipes.items() if recipes else [(Path(), {})]
    for path, recipe in others:
        if ("seed" in recipe) != ("seed" in expected):
            problems.append(Problem(_name(path), "recipe", f"lies among files of another kind ({_name(first)})"))
            continue
        whose = f"{_name(first)} with"
        problems += [Problem(_name(path), kind, why) for kind, why in compare_recipes(recipe, expected, whose)]
    return problems
