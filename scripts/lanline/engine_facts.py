"""Which engines each model has, without importing them: the Snakefile is parsed by every job, and they import numba.

They are queried once for each version of their code, in a separate process (`lanline.cached_facts`).
"""

from __future__ import annotations

import json
from functools import cache
from importlib import metadata
from itertools import product
from typing import Any, get_args

from lanline.cached_facts import ask_child, recall
from lanline.config import Config, Data
from lanline.errors import UserError
from lanline.fingerprints import engine_code
from lanline.models import DEADLINE_SUFFIX, get_model, model_names


def has_exact(model: str) -> bool:
    """Whether a model has densities without simulation."""
    return _facts()[model]["exact"]


def has_own_simulator(model: str) -> bool:
    """Whether lanline itself simulates a model in continuous time."""
    return _facts()[model]["own_simulator"]


def check_engines(config: Config) -> None:
    """Refuse an engine that one of the models lacks, or a target that its engine cannot have.

    Raises:
        UserError: with one line for each such model.
    """
    setting = _setting(config.data.engine, config.data.target)
    refused = [_facts()[entry.name]["refused"].get(setting) for entry in config.models]
    if lines := [f"  {line}" for line in refused if line]:
        raise UserError("\n".join([f"configuration has {len(lines)} mistake(s):", *lines]))


def _setting(engine: str, target: str) -> str:
    return f"{engine}, {target}"


@cache
def _facts() -> dict[str, dict[str, Any]]:
    """By model: whether it is ``exact``, has an ``own_simulator``, and by setting the reason why it is ``refused``."""
    name = f"engines-{engine_code()}-ssm-simulators-{metadata.version('ssm-simulators')}.json"
    return recall(name, lambda: ask_child(__name__, "which models the engines cover"))


def _ask(name: str) -> dict[str, Any]:
    from lanline import engines
    from lanline.engines.simulation import walks

    model, refused = get_model(name), {}
    for engine, target in product(*(get_args(Data.model_fields[key].annotation) for key in ("engine", "target"))):
        try:
            engines.resolve_engine(model, Data(engine=engine, target=target))
        except UserError as error:
            refused[_setting(engine, target)] = str(error)
    own = model.simulator in walks.SIMULATORS
    return {"exact": engines.has_exact(model), "own_simulator": own, "refused": refused}


if __name__ == "__main__":
    names = [name + suffix for name in model_names() for suffix in ("", DEADLINE_SUFFIX)]
    print(json.dumps({name: _ask(name) for name in names}))
