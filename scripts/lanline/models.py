"""The model registry of ssm-simulators behind one small type.

Importing ssm-simulators takes seconds, and the Snakefile is parsed again by every cluster job. So the
registry's plain facts (names, parameters, bounds, choices) are read from a snapshot in the user's cache
folder, made once for each installed version of ssm-simulators in a subprocess. Nothing of the registry is
retyped here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from lanline.errors import UserError, did_you_mean
from lanline.versions import child_environment

if TYPE_CHECKING:
    import numpy as np

SNAPSHOT_FORMAT = 2
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
        constrained: whether parameters drawn within the bounds need `apply_constraints`.
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
            f"unknown model '{name}': ssm-simulators {metadata.version('ssm-simulators')} registers "
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


def bounds_at(model: Model, param: str, theta: np.ndarray) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Lower and upper bound of a parameter; one that is another parameter is that one's value in ``theta`` (..., P)."""
    lower, upper = (
        theta[..., model.params.index(bound)] if isinstance(bound, str) else bound for bound in model.bounds[param]
    )
    return lower, upper


def params_by_bounds(model: Model) -> list[str]:
    """The parameters in an order in which every bound that is a parameter comes before what it bounds."""
    order: list[str] = []
    while len(order) < len(model.params):
        order += [
            param
            for param in model.params
            if param not in order and all(not isinstance(b, str) or b in order for b in model.bounds[param])
        ]
    return order


def apply_constraints(model: Model, theta: np.ndarray) -> np.ndarray:
    """Change parameters that were drawn within the bounds such that they keep the registry's constraints.

    These are ssm-simulators' own transforms, e.g. a start point above the bound is swapped with it. Imports
    ssm-simulators (seconds).

    Args:
        model: the model.
        theta: (n, P) in the order of ``model.params``.

    Returns:
        A new array of the same shape.
    """
    import numpy as np
    from ssms.config import ModelConfigBuilder
    from ssms.transforms import NormalizeToSumConstraint, SwapIfLessConstraint

    name = model.name.removesuffix(DEADLINE_SUFFIX)
    transforms = ModelConfigBuilder.get_sampling_transforms(ModelConfigBuilder.from_model(name))
    if name in SUM_TO_ONE:
        transforms = [NormalizeToSumConstraint(["v0", "v1", "v2"]), SwapIfLessConstraint("a", "z")]
    columns = {param: theta[:, i] for i, param in enumerate(model.params)}
    for transform in transforms:
        columns = transform.apply(columns)
    return np.stack([columns[param] for param in model.params], axis=1)


@cache
def _snapshot() -> dict:
    version = metadata.version("ssm-simulators")
    path = user_cache_path("lanline") / f"ssm-simulators-{version}-format{SNAPSHOT_FORMAT}.json"
    if not path.exists():
        command = [sys.executable, "-m", "lanline.models", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
        if done.returncode != 0:
            raise UserError(f"ssm-simulators {version} could not be read:\n{done.stderr.strip()}")
    return json.loads(path.read_text())


def write_snapshot(path: Path) -> None:
    """Write the facts of every registered model to ``path``, atomically. Imports ssm-simulators (seconds)."""
    from ssms.config import ModelConfigBuilder, get_model_registry

    registry = get_model_registry()
    models = {name: _facts(registry.get(name)) for name in registry.list_models()}
    deadline = ModelConfigBuilder.from_model("ddm" + DEADLINE_SUFFIX)["param_bounds_dict"]["deadline"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as handle:
        json.dump({"models": models, "deadline_bounds": list(deadline)}, handle)
    Path(handle.name).replace(path)


def _facts(entry: dict) -> dict:
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
    write_snapshot(Path(sys.argv[1]))
