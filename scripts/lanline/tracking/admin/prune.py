"""Removing runs for good, with their artifacts, after showing what would go.

``mlflow gc`` is not used for it: it also takes every experiment in MLflow's trash, whichever runs it is asked for.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from lanline.errors import UserError
from lanline.files import redact
from lanline.tracking.mlflow.registry import runs_in_use
from lanline.tracking.mlflow.store import Store, call, call_all, connect, write

_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Prunable:
    """A run that would go, or stays because it is ``needed_by`` a registered network."""

    run_id: str
    name: str
    status: str
    start_time: int
    needed_by: str = ""

    def __str__(self) -> str:
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.start_time / 1000))
        needed = f"  ({self.needed_by})" if self.needed_by else ""
        return f"{self.run_id}  {begun}  {self.status:8}  {self.name}{needed}"


def parse_age(text: str) -> int:
    """Seconds of an age such as ``12h``, ``30d`` or ``8w``.

    Raises:
        UserError: it is not of that form.
    """
    match = re.fullmatch(r"(\d+)([hdw])", text)
    if not match:
        raise UserError(f"OLDER_THAN={text!r}: expected a number with h, d or w, e.g. 30d")
    return int(match[1]) * _UNITS[match[2]]


def only_trashes(store: Store) -> bool:
    """Whether runs can only be moved to the store's trash: only a server's own ``mlflow gc`` empties it."""
    return store.uri.startswith("http")


def _view(store: Store) -> int:
    """The runs that can go: those in the trash too, where it can be emptied from here."""
    from mlflow.entities import ViewType

    return ViewType.ACTIVE_ONLY if only_trashes(store) else ViewType.ALL


def select(store: Store, experiment: str, older_than: int = 0) -> tuple[list[Prunable], list[Prunable]]:
    """The runs of an experiment that began more than ``older_than`` seconds ago, oldest first.

    Active runs are left out; runs already in MLflow's trash are included if they can be removed from there.

    Returns:
        The runs to remove, and those to keep: an alias (production, candidate) of a registered network stands for
        them, or they made its data.

    Raises:
        UserError: there is no experiment of that name.
    """
    client = connect(store)
    found = call(store, client.get_experiment_by_name, experiment)
    if found is None:
        names = ", ".join(sorted(each.name for each in call(store, client.search_experiments)))
        raise UserError(f"{store.shown} has no experiment '{experiment}'; it has: {names}")
    before = int((time.time() - older_than) * 1000)
    query = f"attributes.start_time < {before} and attributes.status != 'RUNNING'"
    runs = call_all(store, client.search_runs, [found.experiment_id], query, _view(store))
    needed = runs_in_use(client, store)
    chosen = [
        Prunable(info.run_id, info.run_name, info.status, info.start_time, needed.get(info.run_id, ""))
        for info in sorted((run.info for run in runs), key=lambda info: info.start_time)
    ]
    return [run for run in chosen if not run.needed_by], [run for run in chosen if run.needed_by]


def are_last(store: Store, experiment: str, runs: list[Prunable]) -> bool:
    """Whether nothing is left in an experiment without these runs, so that it may go too.

    Never for MLflow's own, ``Default``: clients that name no experiment write there.
    """
    client = connect(store)
    found = call(store, client.get_experiment_by_name, experiment)
    if found.experiment_id == "0" or found.lifecycle_stage == "deleted":
        return False
    there = call_all(store, client.search_runs, [found.experiment_id], "", _view(store))
    return {run.info.run_id for run in there} <= {run.run_id for run in runs}


def trash_if_empty(store: Store, experiment: str) -> bool:
    """Move an experiment to MLflow's trash, unless a run began in it meanwhile, and return whether it did."""
    if empty := are_last(store, experiment, []):
        client = connect(store)
        write(store, client.delete_experiment, call(store, client.get_experiment_by_name, experiment).experiment_id)
    return empty


def prune(store: Store, runs: list[Prunable]) -> None:
    """Delete runs. In a database store they and their artifacts are gone for good; a server keeps them in its
    trash.

    Raises:
        UserError: MLflow could not remove them.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracking import _get_store

    client = connect(store)
    for run in runs:
        try:
            info = call(store, client.get_run, run.run_id).info
            if info.lifecycle_stage == "active":
                write(store, client.delete_run, run.run_id)
            if not only_trashes(store):
                # The artifacts first: if that fails, the run is still in the trash and found again.
                get_artifact_repository(info.artifact_uri).delete_artifacts()
                write(store, _get_store(store.uri)._hard_delete_run, run.run_id)
        except (MlflowException, OSError) as error:
            raise UserError(f"{run.run_id}: {redact(str(error))}") from None
