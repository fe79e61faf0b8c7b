"""MLflow's model registry: networks that passed their evaluation, by model and network type.

A version is made from a journal's event ``register``, so that it is not lost when MLflow is unreachable. The alias
``candidate`` is the newest version, ``production`` the one that somebody chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lanline.errors import UserError, did_you_mean
from lanline.tracking.mlflow.store import Store, call, call_all, connect, write

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE, PRODUCTION = "candidate", "production"


@dataclass(frozen=True)
class Promotion:
    """What `promote` did: the version that has the alias now, and the one that had it before."""

    name: str
    version: int
    before: int | None

    def __str__(self) -> str:
        before = f" (before: version {self.before})" if self.before is not None else ""
        return f"models:/{self.name}@{PRODUCTION} is version {self.version}{before}"


def register_version(
    client: MlflowClient, store: Store, name: str, run_id: str, folder: str, tags: Mapping[str, str]
) -> int:
    """Make the folder of a run's artifacts a version of the model ``name``, the new ``candidate``; once for each run.

    Args:
        client: of the store.
        store: to write to.
        name: ``{model}-{network type}``.
        run_id: the training.
        folder: the run's artifact folder with the network.
        tags: of the version; those of a version that is there are brought up to date.

    Returns:
        The version's number.
    """
    _make_model(client, store, name)
    found = call(store, client.search_model_versions, f"name = '{name}' and run_id = '{run_id}'")
    if found:
        version = min(int(each.version) for each in found)
        for key, value in tags.items():
            write(store, client.set_model_version_tag, name, str(version), key, value)
    else:
        source = f"runs:/{run_id}/{folder}"
        write(store, client.create_model_version, name, source, run_id=run_id, tags=dict(tags))
        # MLflow's client repeats a request whose answer was lost, and the server then has two.
        made = call(store, client.search_model_versions, f"name = '{name}' and run_id = '{run_id}'")
        version, *doubles = sorted(int(each.version) for each in made)
        for double in doubles:
            write(store, client.delete_model_version, name, str(double))
    # A record that is synced a second time must not take the alias from a newer network.
    if version > (_aliases(client, store, name).get(CANDIDATE) or 0):
        write(store, client.set_registered_model_alias, name, CANDIDATE, str(version))
    return version


def promote(store: Store, name: str, version: int | None = None) -> Promotion:
    """Give a version of a registered network the alias ``production``.

    Args:
        store: from `resolve_store`.
        name: ``{model}-{network type}``, e.g. ``ddm-lan``.
        version: its number; default: the candidate.

    Raises:
        StoreUnavailable: the store cannot be reached.
        UserError: there is no such network or version, or no candidate.
    """
    client = connect(store)
    names = [model.name for model in call_all(store, client.search_registered_models)]
    if name not in names:
        known = ", ".join(sorted(names)) or "none: networks are registered when they pass their evaluation"
        raise UserError(f"{store.shown} has no network {name!r}.{did_you_mean(name, names)} Registered: {known}")
    aliases = _aliases(client, store, name)
    if version is None:
        if CANDIDATE not in aliases:
            raise UserError(f"{name} has no {CANDIDATE} in {store.shown}: choose one with --version")
        version = aliases[CANDIDATE]
    versions = sorted(int(each.version) for each in call(store, client.search_model_versions, f"name = '{name}'"))
    if version not in versions:
        raise UserError(f"{name} has no version {version} in {store.shown}, only {', '.join(map(str, versions))}")
    write(store, client.set_registered_model_alias, name, PRODUCTION, str(version))
    return Promotion(name, version, aliases.get(PRODUCTION))


def runs_in_use(client: MlflowClient, store: Store) -> dict[str, str]:
    """The runs that an alias of a registered network stands for, and those of their data; each with the aliases."""
    from mlflow.exceptions import MlflowException

    uses: dict[str, list[str]] = {}
    for model in call_all(store, client.search_registered_models):
        for alias, number in model.aliases.items():
            run_id = call(store, client.get_model_version, model.name, str(number)).run_id
            if not run_id:  # registered by another program
                continue
            try:
                data = call(store, client.get_run, run_id).data.tags.get("data_generation_run_id")
            except MlflowException:
                data = None  # the run is gone
            uses.setdefault(run_id, []).append(f"models:/{model.name}@{alias}")
            if data:
                uses.setdefault(data, []).append(f"data of models:/{model.name}@{alias}")
    return {run_id: ", ".join(names) for run_id, names in uses.items()}


def _make_model(client: MlflowClient, store: Store, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        write(store, client.create_registered_model, name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _aliases(client: MlflowClient, store: Store, name: str) -> dict[str, int]:
    aliases: Mapping[str, Any] = call(store, client.get_registered_model, name).aliases
    return {alias: int(version) for alias, version in aliases.items()}
