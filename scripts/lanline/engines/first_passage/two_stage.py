"""Exact densities of choices on two levels: a diffusion on the high level selects one of two on the low level.

ssm-simulators' ``ddm_seq2*`` and ``ddm_par2*``: the levels have drifts vh, vl1, vl2, start points and one bound +-b(t),
unit noise, and the choice is 2 (high one is upper) + (low one is upper). With densities h of the high level and l of
the low level that its outcome selects,

- ``seq2``: the low level starts when the high one is decided, at a share zl of the way between the bounds as they are
  then: f(t) = int h(r) l(t | r) dr;
- ``par2``: both start at 0 and the later one responds: f(t) = h(t) int_0^t l + l(t) int_0^t h.

Drifts are factors exp(v (x - x0) - v^2 (t - r) / 2) of densities without drift (`lanline.engines.first_passage.
moving_bounds`). The integral is a trapezoid rule in w, where exp(w) is the share of the clock before the decision of
the high level over that after it: what it adds up falls off double exponentially on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lanline.engines.first_passage.moving_bounds import DEEP, Bound, Curved, Kernel, Linear, Moments
from lanline.engines.tables import Table, cell_masses, make_table, slopes
from lanline.models import Model

SEQUENTIAL, PARALLEL = "ddm_flexbound_seq2", "ddm_flexbound_par2"
_LINEAR, _CURVED = ("constant", "angle"), ("weibull_cdf", "conflict_gamma")
_STARTS = ("zh", "zl1", "zl2")
N_NODES, N_SHARES = 128, 48
# Of a first look at where the density is.
N_COARSE, COARSE_SHARES = 56, 20
# The table ends where exp(-END) is left.
END = 40.0


def covers(model: Model) -> bool:
    """Whether this family has the density of ``model``."""
    bounds = _LINEAR if set(_STARTS) & set(model.params) else (*_LINEAR, *_CURVED)
    return model.simulator in (SEQUENTIAL, PARALLEL) and model.boundary in bounds


@dataclass(frozen=True)
class Levels:
    """One theta's levels.

    Attributes:
        kernel: their bounds.
        drift: (3,) of the high level, and of the low level after the lower and the upper outcome.
        start: (3,) relative to the bounds (-1 to 1), before these are moved outwards.
        shift: by which they are.
    """

    kernel: Kernel
    drift: np.ndarray
    start: np.ndarray
    shift: float

    def start_at(self, level: int, height: np.ndarray | float) -> np.ndarray | float:
        """Relative to the bounds as they are."""
        return self.start[level] * (1 - self.shift / height)

    def pull(self, level: int, begin: Moments | None, end: Moments) -> np.ndarray:
        """(2, ...) logs of the factors that drift makes."""
        since, height = (begin.time, begin.height) if begin else (0.0, self.kernel.height)
        v, x0 = self.drift[level], self.start_at(level, height) * height
        return np.stack([-v * end.height, v * end.height]) - v * x0 - 0.5 * v * v * (end.time - since)

    def from_zero(self, level: int, end: Moments) -> np.ndarray:
        """(2, ...) log-densities of a level that begins at the time 0."""
        flux = self.kernel.log_flux(None, end, self.start_at(level, self.kernel.height))
        return flux + self.pull(level, None, end)

    def distances(self) -> np.ndarray:
        """(3, 2) of the starts from the lower and the upper bound at the time 0."""
        height = self.kernel.height
        x0 = np.array([self.start_at(level, height) * height for level in range(3)])
        return np.stack([height + x0, height - x0], axis=1)


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float, refine: int = 1) -> Table:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`.

    ``refine`` times as many nodes, shares, starts and cells as usual make a reference to judge the usual ones by.
    """
    onset = theta[:, model.params.index("t")].astype(float)
    limits = limit - onset
    rows = zip(theta, limits, strict=True)
    parts = [_tabulate(model, _levels(model, row, max(last, 1e-9), shift, refine), refine) for row, last in rows]
    log_time, log_f, scale = (np.stack(part) for part in zip(*parts, strict=True))
    return make_table(onset, limits, log_time, log_f, scale, model.choices)


def _levels(model: Model, row: np.ndarray, limit: float, shift: float, refine: int) -> Levels:
    from ssms.config import get_boundary_registry

    value = dict(zip(model.params, (float(each) for each in row), strict=True))
    if model.boundary in _LINEAR:
        kernel: Kernel = Linear(value["a"] + shift, math.tan(value.get("theta", 0.0)), limit)
    else:
        registered = get_boundary_registry().get(model.boundary)
        params = {name: value[name] for name in registered["params"] if name in value}
        bound = _moved(registered["fun"], params, shift)
        kernel = Curved.make(bound, limit, model.simulator == SEQUENTIAL, refine)
    start = np.array([2 * value.get(name, 0.5) - 1 for name in _STARTS])
    return Levels(kernel, np.array([value[name] for name in ("vh", "vl1", "vl2")]), start, shift)


def _moved(function: Callable[..., np.ndarray], params: dict[str, float], shift: float) -> Bound:
    return lambda t: function(t=t, **params) + shift


def _tabulate(model: Model, levels: Levels, refine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log time nodes (N,), log-densities (4, N) there, and A (4,) of the onset exp(-A / t)."""
    kernel, distance = levels.kernel, levels.distances()
    high, low = np.repeat(distance[0], 2), distance[1:].ravel()
    sequential = model.simulator == SEQUENTIAL
    scale = 0.5 * (high + low) ** 2 if sequential else 0.5 * (high**2 + low**2)
    first = min(scale.min() / kernel.height**2 / DEEP, 0.5 * kernel.last)
    coarse = kernel.at(np.geomspace(first, kernel.last, N_COARSE))
    sketch = _one_after_the_other(levels, coarse, COARSE_SHARES) if sequential else _the_later(levels, coarse)
    nodes = kernel.at(_nodes(coarse, sketch, refine * N_NODES))
    log_f = _one_after_the_other(levels, nodes, refine * N_SHARES) if sequential else _the_later(levels, nodes)
    return np.log(nodes.time), log_f, scale


def _nodes(coarse: Moments, log_f: np.ndarray, n_nodes: int) -> np.ndarray:
    """Clocks between which the logarithms of time, bound and survival change by similar amounts."""
    begin = min(int(np.argmax(log_f.max(axis=0) > -DEEP)), len(coarse.time) - 3)
    clock, time, height = (part[begin:] for part in coarse[:3])
    f = np.exp(np.minimum(log_f[:, begin:], 50.0)).sum(axis=0)
    mass = 0.5 * np.diff(time) * (f[1:] + f[:-1])
    left = np.cumsum(np.append(mass, max(1 - mass.sum(), 1e-300))[::-1])[::-1]
    gone = np.maximum(-np.log(left), 0.0)
    end = max(int(np.searchsorted(gone, END)), 3) + 1
    change = np.diff(gone) / (1 + 0.25 * gone[1:]) + np.diff(np.log(time)) + 2 * np.abs(np.diff(np.log(height)))
    position = np.append(0.0, np.cumsum(change[: end - 1]))
    return np.interp(np.linspace(0, position[-1], n_nodes), position, clock[:end])


def _one_after_the_other(levels: Levels, end: Moments, n_shares: int) -> np.ndarray:
    """(4, T) log-densities of ``seq2``."""
    kernel = levels.kernel
    end = Moments(*(part[:, None] for part in end))
    # At the ends either level takes so short that its density is exp(-DEEP).
    nearest = 1 - np.abs(levels.start).max()
    width = np.log(np.maximum(end.clock * 2 * DEEP / nearest**2, 4.0))
    share = 1 / (1 + np.exp(-width * np.linspace(-1, 1, n_shares)))
    begin = kernel.at(end.clock * share)
    weight = 2 * width / (n_shares - 1) * end.clock * share * (1 - share) * begin.height**2
    high = levels.from_zero(0, begin) + np.log(weight)
    fluxes: dict[float, np.ndarray] = {}
    out = []
    for side, level in ((0, 1), (1, 2)):
        start = levels.start[level]
        if start not in fluxes:
            fluxes[start] = kernel.log_flux(begin, end, levels.start_at(level, begin.height))
        terms = high[side] + fluxes[start] + levels.pull(level, begin, end)
        top = terms.max(axis=-1, keepdims=True)
        out.append(top[..., 0] + np.log(np.exp(terms - top).sum(axis=-1)))
    return np.concatenate(out)


def _the_later(levels: Levels, end: Moments) -> np.ndarray:
    """(4, T) log-densities of ``par2``."""
    time, scale = end.time, 0.5 * levels.distances() ** 2
    log_f = np.stack([levels.from_zero(level, end) for level in range(3)])
    log_time = np.log(time)[None]
    smooth = np.maximum(log_f + scale[..., None] / time, -1e4).reshape(1, 6, -1)
    mass = cell_masses(log_time, scale.reshape(1, 6), smooth, slopes(log_time, smooth)).reshape(3, 2, -1)
    # exp(-A / t) integrates to t^2 / A times itself, nearly: what is done before the first node, and while next to
    # nothing is.
    early = log_f + np.log(time**2 / scale[..., None])
    done = np.cumsum(np.concatenate([np.exp(early[..., :1]), mass], axis=-1), axis=-1)
    log_done = np.where(done > 1e-250, np.log(np.maximum(done, 1e-250)), early)
    pairs = ((0, 1), (1, 2))
    low_last = [log_f[level] + log_done[0, side] for side, level in pairs]
    high_last = [log_f[0, side] + log_done[level] for side, level in pairs]
    return np.logaddexp(np.concatenate(low_last), np.concatenate(high_last))
