"""The model registry of ssm-simulators behind one small type.

Importing ssm-simulators takes seconds, and the Snakefile is parsed again by every cluster job. So the
registry's plain facts (names, parameters, bounds, choices) are read in a separate process, once for each
installed version of ssm-simulators (`lanline.cached_facts`). Nothing of the registry is retyped here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any

from lanline.cached_facts import ask_child, recall
from lanline.errors import UserError, did_you_mean

SNAPSHOT_FORMAT = 3
DEADLINE_SUFFIX = "_deadline"
# ssm-simulators checks that these models' drift rates sum to 1, but registers nothing that would sample them
# so.
SUM_TO_ONE = ("lba_3_vs_constraint", "lba_angle_3_vs_constraint")


@dataclass(frozen=True)
class Model:
    """One sequential sampling model as ssm-simulators registers it.

    Attributes:
        name: registry name, e.g. ``ddm``; a ``_deadline`` variant has ``deadline`` as its last parameter.
        params: parameter names in the order of the columns of theta.
        bounds: parameter name to (lower, upper); an upper bound may be another parameter's name.
        choices: response values as the simulators return them, e.g. (-1, 1).
        n_particles: number of accumulators.
        boundary: name of the boundary function in ssm-simulators' boundary registry.
        drift: name of the drift function in its drift registry, or None for a constant drift.
        simulator: name of the compiled simulator.
        constrained: whether parameters drawn within the bounds need `lanline.theta.apply_constraints`.
    """

    name: str
    params: tuple[str, ...]
    bounds: dict[str, tuple[float, float | str]]
    choices: tuple[int, ...]
    n_particles: int
    boundary: str
    drift: str | None
    simulator: str
    constrained: bool

    def within(self, bounds: Mapping[str, tuple[float, float]]) -> Model:
        """This model with other bounds for some of its parameters."""
        return replace(self, bounds={**self.bounds, **bounds})


def model_names() -> list[str]:
    """Names of all registered models, sorted, without the ``_deadline`` variants."""
    return sorted(_snapshot()["models"])


def get_model(name: str) -> Model:
    """The registered model of that name.

    Raises:
        UserError: ssm-simulators has no model of that name.
    """
    base = name.removesuffix(DEADLINE_SUFFIX)
    snapshot = _snapshot()
    if base not in snapshot["models"]:
        raise UserError(
            f"unknown model '{name}': ssm-simulators {_version()} registers "
            f"{len(snapshot['models'])} models.{did_you_mean(base, snapshot['models'])}"
        )
    facts = snapshot["models"][base]
    bounds = {param: tuple(pair) for param, pair in facts["bounds"].items()}
    if name != base:
        bounds["deadline"] = tuple(snapshot["deadline_bounds"])
    return Model(
        name=name,
        params=tuple(bounds),
        bounds=bounds,
        choices=tuple(facts["choices"]),
        n_particles=facts["n_particles"],
        boundary=facts["boundary"],
        drift=facts["drift"],
        simulator=facts["simulator"],
        constrained=facts["constrained"],
    )


@cache
def _snapshot() -> dict[str, Any]:
    name = f"ssm-simulators-{_version()}-format{SNAPSHOT_FORMAT}.json"
    return recall(name, lambda: ask_child(__name__, f"the models of ssm-simulators {_version()}"))


def _version() -> str:
    try:
        return metadata.version("ssm-simulators")
    except metadata.PackageNotFoundError:
        raise UserError("ssm-simulators is not installed: pip install ssm-simulators") from None


def read_registry() -> dict[str, Any]:
    """The facts of every registered model, as plain JSON. Imports ssm-simulators (seconds)."""
    from ssms.config import ModelConfigBuilder, get_model_registry

    registry = get_model_registry()
    models = {name: _facts(registry.get(name)) for name in registry.list_models()}
    deadline = ModelConfigBuilder.from_model("ddm" + DEADLINE_SUFFIX)["param_bounds_dict"]["deadline"]
    return {"models": models, "deadline_bounds": list(deadline)}


def _facts(entry: dict[str, Any]) -> dict[str, Any]:
    bounds = {param: list(entry["param_bounds_dict"][param]) for param in entry["params"]}
    # A few entries name only the number of choices; their simulators return 0, 1, 2, ...
    choices = entry.get("choices") or range(entry["nchoices"])
    return {
        "bounds": bounds,
        "choices": [int(choice) for choice in choices],
        "n_particles": entry["n_particles"],
        "boundary": entry["boundary_name"],
        "drift": entry.get("drift_name"),
        "simulator": entry["simulator"].__name__,
        "constrained": bool(entry.get("parameter_transforms", {}).get("sampling")) or entry["name"] in SUM_TO_ONE,
    }


if __name__ == "__main__":
    print(json.dumps(read_registry()))
