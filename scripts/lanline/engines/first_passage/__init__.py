"""The engine ``first_passage``: densities by numerical solution, each family of models in a module of its own."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from lanline.config import Data
from lanline.engines.first_passage import race, two_bounds, two_stage
from lanline.engines.overshoot import outward_shift
from lanline.engines.tables import Table
from lanline.models import Model

FAMILIES = (two_bounds, race, two_stage)


def covers(model: Model) -> bool:
    """Whether one of the families has the density of ``model``."""
    return _family(model) is not None


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, data: Data, rng: np.random.Generator) -> Table:
    """Densities at each row of ``theta``; see `lanline.engines.Engine`. ``rng`` is left alone.

    Raises:
        ValueError: no family covers the model.
    """
    family = _family(model)
    if family is None:
        raise ValueError(f"first_passage does not cover {model.name}")
    return family.densities(model, theta, limit, outward_shift(data))


def _family(model: Model) -> ModuleType | None:
    return next((family for family in FAMILIES if family.covers(model)), None)
