"""Engines: where labels come from, and the choice between them. The one door to all of them.

An engine returns, for a block of thetas of one model, the density of (rt, choice) up to the time limit. All
engines answer the same four questions (`Densities`); what differs is how exact the answers are.
"""

from __future__ import annotations

import numpy as np

from lanline.config import Data
from lanline.engines import closed_form, first_passage, simulation
from lanline.engines.protocol import Densities, Engine
from lanline.errors import UserError
from lanline.models import Model

__all__ = [
    "ENGINES",
    "Densities",
    "Engine",
    "densities",
    "engines_of",
    "has_exact",
    "has_response_times",
    "resolve_engine",
    "time_limit",
]

# The most exact one first.
ENGINES: dict[str, Engine] = {"closed_form": closed_form, "first_passage": first_passage, "simulation": simulation}


def engines_of(model: Model) -> list[str]:
    """The engines that have the density of a model, the most exact one first."""
    return [name for name, engine in ENGINES.items() if engine.covers(model)]


def has_exact(model: Model) -> bool:
    """Whether a model has densities without simulation."""
    return engines_of(model)[0] != "simulation"


def has_response_times(model: Model) -> bool:
    """Whether a model is of response times too, and not of the choice alone."""
    return simulation.covers(model)


def resolve_engine(model: Model, data: Data) -> str:
    """The engine that ``data.engine`` means for this model.

    Raises:
        UserError: the model does not have that engine, or the engine has no labels for ``data.target``.
    """
    available = engines_of(model)
    if data.engine not in ("auto", *available):
        raise UserError(f"data.engine: {model.name} has no {data.engine}; expected auto, {', '.join(available)}")
    engine = available[0] if data.engine == "auto" else data.engine
    if engine == "simulation":
        simulation.check_target(model, data.target)
    return engine


def time_limit(model: Model, theta: np.ndarray, data: Data) -> np.ndarray:
    """(B,) seconds after which a response is an omission: ``data.max_t``, or an earlier deadline of the
    model."""
    limit = np.full(len(theta), data.max_t)
    if "deadline" in model.params:
        limit = np.minimum(limit, theta[:, model.params.index("deadline")])
    return limit


def densities(model: Model, theta: np.ndarray, data: Data, rng: np.random.Generator) -> Densities:
    """Densities of ``model`` at each row of ``theta``, from the engine and for the target that ``data``
    names.

    Args:
        model: a registered model.
        theta: (B, P) parameters in the order of ``model.params``.
        data: engine, target and their settings.
        rng: used by engines that simulate; the others leave it alone.

    Raises:
        UserError: as `resolve_engine`.
    """
    engine = ENGINES[resolve_engine(model, data)]
    return engine.densities(model, theta, time_limit(model, theta, data), data, rng)
