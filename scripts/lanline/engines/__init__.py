"""Engines: where labels come from, and the choice between them.

An engine gives, for a block of thetas of one model, the density of (rt, choice) up to the time limit. All
engines answer the same four questions (`Densities`); what differs is how exact the answers are.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Protocol

import numpy as np

from lanline.config import Data
from lanline.errors import UserError
from lanline.models import Model


class Densities(Protocol):
    """Densities of (rt, choice) of one model at B thetas, with responses before a time limit.

    Times are response times in seconds, non-decision time included; choices are the model's own values.
    """

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(B, n) response times and choices, conditional on a response before the time limit.

        nan for a theta at which there is (next to) none.
        """

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """(B, n) log-density at (B, n) response times and choices.

        -inf where there is no density: before the onset and from the time limit on.
        """

    def choice_probability(self) -> np.ndarray:
        """(B, C) probability of each choice before the time limit, in the order of ``model.choices``."""

    def omission_probability(self) -> np.ndarray:
        """(B,) probability that there is no response before the time limit."""


def engines_of(model: Model) -> list[str]:
    """The engines that have the density of a model, the most exact one first."""
    from lanline.engines.closed_form import softmax
    from lanline.engines.first_passage import engine as first_passage

    # Choices alone have no response times to estimate a density from.
    engines = [] if softmax.covers(model) else ["simulation"]
    if first_passage.covers(model):
        engines.insert(0, "first_passage")
    if _by_formula(model) is not None:
        engines.insert(0, "closed_form")
    return engines


def has_exact(model: Model) -> bool:
    """Whether a model has densities without simulation."""
    return engines_of(model)[0] != "simulation"


def _by_formula(model: Model) -> ModuleType | None:
    """The module of the engine ``closed_form`` that has the density of ``model``."""
    from lanline.engines.closed_form import ddm as closed_form
    from lanline.engines.closed_form import full_ddm as variability
    from lanline.engines.closed_form import races, softmax
    from lanline.engines.closed_form import random_onset as onsets

    modules = (closed_form, races, variability, onsets, softmax)
    return next((module for module in modules if module.covers(model)), None)


def resolve_engine(model: Model, data: Data) -> str:
    """The engine that ``data.engine`` means for this model.

    Raises:
        UserError: the model does not have that engine, or the engine cannot give labels for ``data.target``.
    """
    from lanline.engines.simulation import engine as simulation

    available = engines_of(model)
    if data.engine not in ("auto", *available):
        raise UserError(f"data.engine: {model.name} has no {data.engine}; it has auto, {', '.join(available)}")
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
    from lanline.engines.first_passage import engine as first_passage
    from lanline.engines.simulation import engine as simulation

    engine = resolve_engine(model, data)
    limit = time_limit(model, theta, data)
    if engine == "simulation":
        return simulation.densities(
            model, theta, limit, data.target, data.delta_t, data.n_trajectories, data.max_t, rng
        )
    shift = simulation.OVERSHOOT * math.sqrt(data.delta_t) if data.target == "euler" else 0.0
    exact = _by_formula(model) if engine == "closed_form" else first_passage
    return exact.densities(model, theta, limit, shift)
