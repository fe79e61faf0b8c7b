"""The process of a model: bounds and drifts are ssm-simulators' registered functions, called as its simulators call
them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from lanline.engines.compiled import njit
from lanline.models import Model

SIMULATORS = ("ddm_flexbound", "ddm_flex", "ddm_flex_leak", "ornstein_uhlenbeck")
# Registered drifts that change smoothly, and those that jump. None is a constant drift.
SMOOTH = ("gamma_drift", "attend_drift", "attend_drift_simple", "conflict_ds_drift")
JUMPING = ("conflict_dsstimflex_drift", "conflict_stimflex_drift", "conflict_stimflexrel1_drift")


@dataclass(frozen=True)
class Process:
    """One theta's process, in decision time.

    Attributes:
        bound: b(t) for an array of times.
        drift: mu(t) for an array of times.
        leak: g.
        start: x0.
        jumps: whether the drift may jump.
    """

    bound: Callable[[np.ndarray], np.ndarray]
    drift: Callable[[np.ndarray], np.ndarray]
    leak: float
    start: float
    jumps: bool


def processes(model: Model, theta: np.ndarray, shift: float) -> list[Process]:
    """The process of each row of ``theta``, its bounds moved outwards by ``shift``."""
    from ssms.config import get_boundary_registry, get_drift_registry

    bound = get_boundary_registry().get(model.boundary)
    drift = get_drift_registry().get(model.drift or "constant")
    out = []
    for row in theta:
        values = dict(zip(model.params, (float(value) for value in row), strict=True))
        at_bound = {name: values[name] for name in bound["params"] if name in values}
        at_drift = {name: values[name] for name in drift["params"] if name in values}
        start = (2 * values["z"] - 1) * float(bound["fun"](t=np.zeros(1), **at_bound)[0])
        out.append(
            Process(
                bound=_shifted(bound["fun"], at_bound, shift),
                drift=partial(_at_times, drift["fun"], at_drift),
                leak=values.get("g", 0.0),
                start=start,
                jumps=model.drift in JUMPING,
            )
        )
    return out


def _at_times(function: Callable[..., np.ndarray], params: dict[str, float], t: np.ndarray) -> np.ndarray:
    return function(t=t, **params)


def _shifted(
    function: Callable[..., np.ndarray], params: dict[str, float], shift: float
) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: function(t=t, **params) + shift


@njit(cache=True)
def variance_at(t, leak):
    """Variance of X(t) without bounds."""
    return -math.expm1(-2 * leak * t) / (2 * leak) if abs(leak) > 1e-9 else t
