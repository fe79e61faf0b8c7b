"""Fresh simulated trials, which likelihoods and probabilities are both judged at, and the error of a mean over them.

They come from ssm-simulators' own simulators, not from the engine that made the training data: a fault of an engine's
sampler then shows in the errors instead of hiding behind itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lanline.config import Data
from lanline.engines import time_limit
from lanline.engines.simulation import simulate, step
from lanline.models import Model

ReferenceKind = Literal["exact", "simulation"]

TRIALS_PER_THETA = 5  # with an exact reference; more thetas cost more than they add
OMISSION = -1.0  # rt of a trial without a response in time


def simulate_trials(
    model: Model, theta: np.ndarray, n: int, data: Data, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(B, n) response times and choices at (B, P) thetas, for the target of ``data``.

    Omissions have the rt `OMISSION` and the first choice, so that both arrays are numbers throughout.
    """
    limit = time_limit(model, theta, data)
    delta_t = step(model, data.target, data.delta_t)
    rt, choice = simulate(model, theta, limit, data.target, delta_t, n, int(rng.integers(2**31)))
    omitted = np.isnan(rt)
    return np.where(omitted, OMISSION, rt), np.where(omitted, model.choices[0], choice)


def clustered_standard_error(residual: np.ndarray, cluster: np.ndarray) -> float:
    """Standard error of a mean whose residuals (N,) are independent between clusters, not within."""
    sums = np.bincount(cluster, residual)
    return float(np.sqrt(np.sum(sums**2)) / len(residual))
