"""What the commands look at before they train: the same as the workflow's validation, whoever made the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lanline.dataset.engine_checks import compare_foreign
from lanline.dataset.problems import Problem, refuse_unless_accepted, shown
from lanline.dataset.recipe import ForeignOrigin, foreign_origin, read_recipe
from lanline.dataset.row_checks import Limits, Scan, compare_files, scan_rows
from lanline.dataset.shards import read_origin
from lanline.dataset.validation import check_shard, compare_recipes
from lanline.engines import resolve_engine
from lanline.errors import UserError
from lanline.logs import say

SAME_THETAS = 0.5
SIMULATED_AGAIN = 3  # files of simulated labels of which a block is computed again: that takes seconds


@dataclass(frozen=True)
class Given:
    """What a training is given.

    Attributes:
        folder: where the data lie, for messages.
        training: shards to train on, those made of pickles among them.
        validation: shards to validate on.
        network_type: of the network.
        model: its name.
    """

    folder: Path
    training: Sequence[Path]
    validation: Sequence[Path]
    network_type: str
    model: str


def check_training_data(given: Given, accept: bool) -> tuple[str, ...]:
    """Look at all that a training is given, before its first epoch.

    Args:
        given: the files.
        accept: whether to train although something is wrong.

    Returns:
        The accepted problems.

    Raises:
        UserError: something is wrong and not accepted; the message lists it.
    """
    files = sorted({*given.training, *given.validation})
    problems: list[Problem] = []
    scans: dict[Path, Scan] = {}
    recipes: dict[Path, Any] = {}
    simulated = 0
    for path in files:
        try:
            origin = read_origin(path)
            if "from" in origin:
                made = foreign_origin(origin, given.model)
                found, scans[path] = _check_foreign(path, made, given.network_type)
                recipes[path] = {"model": given.model, "delta_t": made.data.delta_t, "max_t": made.data.max_t}
            else:
                recipe = read_recipe(path)
                simulated += resolve_engine(recipe.model, recipe.data) == "simulation"
                found, scans[path] = check_shard(path, recipe, again=simulated <= SIMULATED_AGAIN)
                recipes[path] = recipe.values
        except UserError as error:
            found = [("unreadable", str(error))]
        problems += [Problem(shown(path), kind, reason) for kind, reason in found]
    problems += _compare_with_first(recipes)
    foreign = [scans[path] for path in recipes if path in scans and "seed" not in recipes[path]]
    problems += compare_files(scans, given.validation, estimated=bool(foreign))
    _note_same_thetas(foreign)
    return refuse_unless_accepted(problems, given.folder, accept)


def _check_foreign(path: Path, made: ForeignOrigin, network_type: str) -> tuple[list[tuple[str, str]], Scan]:
    limits = Limits(made.model, made.data.floor, made.data.max_t, estimated=True)
    scan = scan_rows(path, limits, [f"{network_type}_data", f"{network_type}_labels"])
    found = [*scan.problems, *(("labels", reason) for reason in made.contradictions)]
    if not found:  # where rows are impossible, that says more than labels that do not fit them
        found += compare_foreign(path, made, network_type)
    return found, scan


def _note_same_thetas(foreign: Sequence[Scan]) -> None:
    """ssm-simulators up to 0.15 draws the thetas of every file with the same seeds, 0, 1, 2 and so on."""
    if len(foreign) > 1 and np.isin(foreign[1].thetas, foreign[0].thetas).mean() > SAME_THETAS:
        say(
            "note: all files have the same parameter vectors, as files of one `generate` of ssm-simulators do: more "
            "files add no new ones, and the validation loss does not show how well the network does at others"
        )


def _compare_with_first(recipes: dict[Path, Any]) -> list[Problem]:
    """One data set has one recipe."""
    problems = []
    (first, expected), *others = recipes.items() if recipes else [(Path(), {})]
    for path, recipe in others:
        if ("seed" in recipe) != ("seed" in expected):
            problems.append(Problem(shown(path), "recipe", f"differs in kind from the others ({shown(first)})"))
            continue
        whose = f"{shown(first)} with"
        problems += [Problem(shown(path), kind, why) for kind, why in compare_recipes(recipe, expected, whose)]
    return problems
