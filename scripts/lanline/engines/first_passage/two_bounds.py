"""Exact densities of one-particle, two-choice models with Gaussian noise.

The process is dX = (mu(t) - g X) dt + dW between the bounds +-b(t); b is continuous, mu may jump. `process` makes it
of a model, `nodes` places the time nodes, `tabulation` evaluates the process there, and `solver` has the numerical
solution.
"""

from __future__ import annotations

import numpy as np

from lanline.engines.first_passage.process import JUMPING, SIMULATORS, SMOOTH, processes
from lanline.engines.first_passage.tabulation import Resolution, tabulate
from lanline.engines.tables import Table, make_table
from lanline.models import Model

# By the kind of drift.
FOR_CONSTANT, FOR_SMOOTH, FOR_JUMPING = Resolution(57, 48), Resolution(97, 96), Resolution(145, 96)


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``.

    Not of those whose two stimuli leak at different rates (``conflict_stimflexrel1_leak2``): the decision variable is
    the sum of two accumulators, so that its future depends on more than its value.
    """
    return (
        model.simulator in SIMULATORS
        and model.drift in (None, "constant", *SMOOTH, *JUMPING)
        and {"v", "a", "z", "t"} <= set(model.params)
    )


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> Table:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`."""
    table, _ = densities_and_survival(model, theta, limit, shift)
    return table


def densities_and_survival(
    model: Model, theta: np.ndarray, limit: np.ndarray, shift: float, refine: int = 1
) -> tuple[Table, np.ndarray]:
    """As `densities`, and (B,) the probability of no response until the last node, which is not made from them.

    ``shift`` is the distance by which the bounds are moved outwards. ``refine`` times as many steps and cells as usual
    make a reference that the usual densities can be judged by.
    """
    usual = FOR_JUMPING if model.drift in JUMPING else FOR_SMOOTH if model.drift in SMOOTH else FOR_CONSTANT
    resolution = Resolution(refine * (usual.nodes - 1) + 1, refine * usual.cells)
    onset = theta[:, model.params.index("t")].astype(float)
    limits = limit - onset
    parts = [
        tabulate(process, decision_limit, resolution)
        for process, decision_limit in zip(processes(model, theta, shift), limits, strict=True)
    ]
    log_time, log_f, scale, left = (np.stack(part) for part in zip(*parts, strict=True))
    return make_table(onset, limits, log_time, log_f, scale, model.choices), left
