"""Labels from simulated trials and a kernel density estimate.

This engine has every model of the registry that has response times. Its labels carry the sampling noise of
`n_trajectories` trials and the smoothing of the estimate. What they are labels of depends on the target:

- ``euler``: the process that ssm-simulators' simulator really runs, with its step delta_t.
- ``continuous``: the process in continuous time, with steps that `step` chooses such that their error stays below
  the sampling noise of 20,000 trials, whatever their number. Accumulators and two-level choices have simulators of
  our own (`walks`). The others are ssm-simulators', run with coarse steps and a correction: a walk
  with step delta_t overshoots its bounds by 0.5826 sqrt(delta_t) on average, as if they lay that much further out
  (Siegmund 1979; Broadie, Glasserman & Kou 1997). Bounds that lie that much further in take the error from order
  sqrt(delta_t) to order delta_t.

Simulated trials that reach the time limit are omissions. They count in the denominator, so the densities of
all choices together have the mass 1 - P(omission), and are never part of the estimate. ssm-simulators itself
reports them in two ways (as -999 with a deadline, as responses just after max_t without); here every
simulation runs with a deadline.
"""

from __future__ import annotations

import numpy as np

from lanline.config import Data
from lanline.engines.closed_form import softmax
from lanline.engines.simulation import kde
from lanline.engines.simulation.estimate import Simulated
from lanline.engines.simulation.trials import check_target, simulate, step
from lanline.models import Model

__all__ = ["check_target", "covers", "densities", "simulate", "step"]


def covers(model: Model) -> bool:
    """Whether the model has response times: choices alone have none to estimate a density from."""
    return not softmax.covers(model)


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, data: Data, rng: np.random.Generator) -> Simulated:
    """Estimated densities at each row of ``theta``; see `lanline.engines.Engine`.

    Raises:
        UserError: the target is ``continuous`` and no correction is known for this model's simulator.
    """
    seed = int(rng.integers(2**31))
    delta_t = step(model, data.target, data.delta_t)
    rt, choice = simulate(model, theta, limit, data.target, delta_t, data.n_trajectories, seed)
    estimates = [
        [kde.fit(rt[b, chosen]) if (chosen := choice[b] == value).any() else None for value in model.choices]
        for b in range(len(theta))
    ]
    return Simulated(rt, choice, limit, model.choices, data.max_t, estimates)
