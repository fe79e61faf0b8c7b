"""Removing runs for good, with their artifacts, after showing what would go."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

from lanline.errors import UserError
from lanline.files import redact
from lanline.tracking.store import Store, ask, connect, write

_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Prunable:
    """A run that would go."""

    run_id: str
    name: str
    status: str
    start_time: int

    def __str__(self) -> str:
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.start_time / 1000))
        return f"{self.run_id}  {begun}  {self.status:8}  {self.name}"


def parse_age(text: str) -> int:
    """Seconds of an age such as ``12h``, ``30d`` or ``8w``.

    Raises:
        UserError: it is not of that form.
    """
    match = re.fullmatch(r"(\d+)([hdw])", text)
    if not match:
        raise UserError(f"OLDER_THAN={text!r}: expected a number with h, d or w, e.g. 30d")
    return int(match[1]) * _UNITS[match[2]]


def select(store: Store, experiment: str, older_than: int = 0) -> list[Prunable]:
    """The runs of an experiment that began more than ``older_than`` seconds ago, oldest first.

    Runs that go on are left out; runs already in MLflow's trash are included.

    Raises:
        UserError: there is no experiment of that name.
    """
    from mlflow.entities import ViewType

    client = connect(store)
    found = ask(store, client.get_experiment_by_name, experiment)
    if found is None:
        names = ", ".join(sorted(each.name for each in ask(store, client.search_experiments)))
        raise UserError(f"{store.shown} has no experiment '{experiment}'; it has: {names}")
    before = int((time.time() - older_than) * 1000)
    query = f"attributes.start_time < {before} and attributes.status != 'RUNNING'"
    runs, token = [], None
    while True:
        page = ask(store, client.search_runs, [found.experiment_id], query, ViewType.ALL, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    chosen = [Prunable(run.info.run_id, run.info.run_name, run.info.status, run.info.start_time) for run in runs]
    return sorted(chosen, key=lambda run: run.start_time)


def prune(store: Store, runs: list[Prunable]) -> None:
    """Delete runs. In a database store they and their artifacts are gone for good; a server keeps them in its
    trash.

    Raises:
        UserError: MLflow could not remove them.
    """
    from mlflow.exceptions import MlflowException

    client = connect(store)
    for run in runs:
        try:
            if ask(store, client.get_run, run.run_id).info.lifecycle_stage == "active":
                write(store, client.delete_run, run.run_id)
        except MlflowException as error:
            raise UserError(f"{run.run_id}: {redact(str(error))}") from None
    if store.uri.startswith("http") or not runs:
        return  # only the server's own `mlflow gc` removes what is in its trash
    command = [sys.executable, "-m", "mlflow", "gc", "--run-ids", ",".join(run.run_id for run in runs)]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri, "MLFLOW_TRACKING_URI": store.uri}
    done = write(store, subprocess.run, command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"mlflow gc failed:\n{redact(done.stderr)}")
