"""The engine ``closed_form``: densities by formula, one module for each family of models."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from lanline.config import Data
from lanline.engines.closed_form import ddm, full_ddm, races, random_onset, softmax
from lanline.engines.overshoot import outward_shift
from lanline.engines.protocol import Densities
from lanline.models import Model

FAMILIES = (ddm, races, full_ddm, random_onset, softmax)


def covers(model: Model) -> bool:
    """Whether one of the formulas has the density of ``model``."""
    return _family(model) is not None


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, data: Data, rng: np.random.Generator) -> Densities:
    """Densities at each row of ``theta``; see `lanline.engines.Engine`. ``rng`` is left alone.

    Raises:
        ValueError: no formula covers the model.
    """
    family = _family(model)
    if family is None:
        raise ValueError(f"closed_form does not cover {model.name}")
    return family.densities(model, theta, limit, outward_shift(data))


def _family(model: Model) -> ModuleType | None:
    return next((family for family in FAMILIES if family.covers(model)), None)
