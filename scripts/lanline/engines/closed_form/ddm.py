"""Exact densities by formula: the drift diffusion model with constant or linearly collapsing bounds.

With bounds +-b(t), b = a - k t, the density for drift v is the driftless density of the fixed interval
(-1, 1) at the time s = t / (a b), times factors for width, collapse and drift (a Doob transform of the Wiener
process). For y0 = 2z - 1 and the bound c = +-1

    log f(t, c) = log f1(s; z, c) - 2 log b + log(b / a) / 2
                  + v (c b - a y0) - v^2 t / 2 + k (b - a y0^2) / 2

and k = 0 is the plain drift diffusion model. A drift that is drawn from N(v, sv^2) in each trial integrates out:
with y = c b - a y0, the mean of exp(v y - v^2 t / 2) is

    exp((sv^2 y^2 + 2 v y - v^2 t) / (2 + 2 sv^2 t)) / sqrt(1 + sv^2 t)

(Tuerlinckx 2004, Behav. Res. Methods 36, 702-716).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanline.engines.closed_form.series import log_density
from lanline.engines.compiled import njit
from lanline.engines.tables import Table, make_table
from lanline.models import Model

N_NODES = 128
# Nodes run from where log f is this far below its peak at the nearer bound to where as much has decayed.
DEPTH = 24.0
STRONG_DRIFT = 12.0  # |v| a, above all of the registry, from which drift moves the peak away from the nodes


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return (
        model.simulator in ("ddm_flexbound", "ddm", "full_ddm_rv")
        and model.drift is None
        and model.boundary in ("constant", "angle")
        and {"v", "a", "z", "t"} <= set(model.params) <= {"v", "a", "z", "t", "sv", "theta", "deadline"}
    )


@dataclass(frozen=True)
class DriftDiffusion:
    """Densities of B thetas; see `lanline.engines.Densities`.

    Attributes:
        shape: (B, 5) drift v, half-width a at time 0, collapse k per second, relative start y0 in (-1, 1),
            standard deviation sv of the drift.
        table: tabulated densities, for sampling and probabilities only.
    """

    shape: np.ndarray
    table: Table

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.table.sample(n, rng)

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        return _rows(rt, choice, self.table.onset, self.table.limit, self.shape)

    def choice_probability(self) -> np.ndarray:
        return self.table.choice_probability()

    def omission_probability(self) -> np.ndarray:
        return self.table.omission_probability()


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> DriftDiffusion:
    """Exact densities at each row of ``theta``.

    Args:
        model: one that this engine covers.
        theta: (B, P) parameters in the order of ``model.params``.
        limit: (B,) largest response time, seconds.
        shift: distance by which the bounds are moved outwards; the start point stays where it is.
    """
    column = {name: np.ascontiguousarray(theta[:, i], dtype=float) for i, name in enumerate(model.params)}
    if model.simulator == "ddm":
        column["a"] = 0.5 * column["a"]  # ddm_legacy moves between 0 and a, all others between -a and a
    shape = _shape(column, shift)
    return DriftDiffusion(shape, _table(shape, column["t"], limit - column["t"], model.choices))


def tabulate(column: dict[str, np.ndarray], limit: np.ndarray, shift: float, choices: tuple[int, ...]) -> Table:
    """Table of decision times, for models that put more on top; ``column`` holds v, a, z and perhaps theta, sv."""
    return _table(_shape(column, shift), np.zeros(len(limit)), limit, choices)


def _shape(column: dict[str, np.ndarray], shift: float) -> np.ndarray:
    half_width = column["a"] + shift
    zero = np.zeros(len(half_width))
    collapse = np.tan(column.get("theta", zero))
    start = (2 * column["z"] - 1) * column["a"] / half_width
    return np.stack([column["v"], half_width, collapse, start, column.get("sv", zero)], axis=1)


def _table(shape: np.ndarray, onset: np.ndarray, limit: np.ndarray, choices: tuple[int, ...]) -> Table:
    log_time, log_f = _tabulate(shape, limit, N_NODES)
    distance = shape[:, 1:2] * (1 - shape[:, 3:4] * np.asarray(choices))
    return make_table(onset, limit, log_time, log_f, 0.5 * distance**2, choices)


@njit(cache=True)
def log_density_at(t, c, v, a, k, y0, sv):
    """Log-density of decision time t at the bound c = +-1; the other arguments as in `DriftDiffusion.shape`."""
    b = a - k * t
    if t <= 0.0 or b <= 0.0:
        return -math.inf
    y = c * b - a * y0
    widening = 1.0 + sv * sv * t
    return (
        log_density(t / (a * b), 1.0 - c * y0)
        - 1.5 * math.log(b)
        - 0.5 * math.log(a)
        + 0.5 * (sv * sv * y * y + 2 * v * y - v * v * t) / widening
        - 0.5 * math.log(widening)
        + 0.5 * k * (b - a * y0 * y0)
    )


@njit(cache=True)
def drift_window(near, far, v, sv):
    """First and last decision time at which log f is less than DEPTH below its peak, for strong drift.

    Where (d - v t)^2 / (2 t) = DEPTH for the distances ``near`` and ``far`` of the bounds; a drift that varies by
    ``sv`` is taken at six of these away on either side.
    """
    fast, slow = abs(v) + 6 * sv, max(abs(v) - 6 * sv, 0.0)
    b = near * fast + DEPTH
    first = near * near / (b + math.sqrt(b * b - near * near * fast * fast))
    if slow == 0.0:
        return first, math.inf
    b = far * slow + DEPTH
    return first, (b + math.sqrt(b * b - far * far * slow * slow)) / (slow * slow)


@njit(cache=True, nogil=True)
def _tabulate(shape, limit, n):
    """Nodes that are geometric in the transformed time s, and both log-densities there."""
    n_theta = len(shape)
    log_time = np.empty((n_theta, n))
    log_f = np.empty((n_theta, 2, n))
    for i in range(n_theta):
        v, a, k, y0, sv = shape[i]
        last = DEPTH * 8 / (math.pi * math.pi)
        end = max(limit[i], 1e-9)  # a limit before the onset leaves no density at all
        if a - k * end > 0.0:
            last = min(last, end / (a * (a - k * end)))
        first = (1 - abs(y0)) ** 2 / (2 * DEPTH)
        if abs(v) * a > STRONG_DRIFT:
            begin, stop = drift_window(a * (1 - abs(y0)), a * (1 + abs(y0)), abs(v) + k, sv)
            first = begin / (a * (a - k * begin))
            if k <= 0.0:  # a bound that collapses ends all trials itself
                last = min(last, stop / (a * a))
        first = min(first, 0.5 * last)
        ratio = math.log(last / first) / (n - 1)
        for j in range(n):
            s = first * math.exp(ratio * j)
            t = s * a * a / (1 + s * a * k)
            log_time[i, j] = math.log(t)
            log_f[i, 0, j] = log_density_at(t, -1.0, v, a, k, y0, sv)
            log_f[i, 1, j] = log_density_at(t, 1.0, v, a, k, y0, sv)
    return log_time, log_f


@njit(cache=True, nogil=True)
def _rows(rt, choice, onset, limit, shape):
    out = np.empty(rt.shape)
    for i in range(rt.shape[0]):
        v, a, k, y0, sv = shape[i]
        for j in range(rt.shape[1]):
            t = rt[i, j] - onset[i]
            out[i, j] = log_density_at(t, choice[i, j], v, a, k, y0, sv) if t < limit[i] else -math.inf
    return out
