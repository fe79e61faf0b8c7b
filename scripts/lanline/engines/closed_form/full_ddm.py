"""Exact densities of the drift diffusion model with drift, start point and non-decision time drawn for each trial.

The drift integrates out by formula (`lanline.engines.closed_form.ddm`), the start point by Gauss-Legendre quadrature
at every time node, and the non-decision time, uniform in t +- st, as the probability that the decision
falls into a window of the width 2 st (Ratcliff & Tuerlinckx 2002, Psychon. Bull. Rev. 9, 438-481):

    f(rt, c) = (F_c(rt - t + st) - F_c(rt - t - st)) / (2 st)

F is summed from the cells of a table of decision times, so that differences keep their relative precision.

ssm-simulators' models differ in the start point. In ``full_ddm_rv`` it is uniform in z +- sz, relative to the
bounds; in ``full_ddm`` in absolute units, so that with narrow bounds it may lie outside. Such a trial ends
at once: F has a jump at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanline.engines.closed_form.ddm import DEPTH, STRONG_DRIFT, drift_window, log_density_at
from lanline.engines.closed_form.drawing import draw_in_time
from lanline.engines.compiled import njit
from lanline.engines.tables import RULE, Table, hermite, make_table
from lanline.models import DEADLINE_SUFFIX, Model

# By name, because ssm-simulators' registry holds the distribution of the non-decision time as code.
_MODELS = ("ddm_st", "full_ddm", "full_ddm2", "full_ddm_rv")
N_NODES = 160
START_RULE = np.polynomial.legendre.leggauss(24)
ONSET_RULE = np.polynomial.legendre.leggauss(32)


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return model.name.removesuffix(DEADLINE_SUFFIX) in _MODELS


@dataclass(frozen=True)
class Variable:
    """Densities of B thetas; see `lanline.engines.Densities`.

    Attributes:
        onset: (B,) mean non-decision time, seconds.
        spread: (B,) half the range of the non-decision time, seconds.
        limit: (B,) largest response time, seconds.
        instant: (B, 2) probability of starting beyond each bound.
        table: decision times of the trials that start between the bounds.
    """

    onset: np.ndarray
    spread: np.ndarray
    limit: np.ndarray
    instant: np.ndarray
    table: Table

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Decision times by inverse CDF plus uniform non-decision times, drawn again where they are too late."""
        shape = (len(self.onset), n)
        at_once = self.instant.sum(axis=1)
        total = self.table.choice_probability().sum(axis=1) + at_once
        earliest = self.onset - self.spread
        span = np.clip(self.limit - earliest, 0.0, 2 * self.spread)

        def draw() -> tuple[np.ndarray, np.ndarray]:
            time, side = self.table.sample(n, rng)
            # Trials that start beyond a bound respond there at once.
            uniform = rng.random(shape) * total[:, None]
            beyond = np.where(uniform < self.instant[:, :1], self.table.choices[0], self.table.choices[1])
            instant = uniform < at_once[:, None]
            time, side = np.where(instant, 0.0, time), np.where(instant, beyond, side)
            return time + earliest[:, None] + span[:, None] * rng.random(shape), side

        return draw_in_time(draw, self.limit, self.choice_probability().sum(axis=1), n)

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        index = np.searchsorted(self.table.choices, choice)
        lag = rt - self.onset[:, None]
        low, high = lag - self.spread[:, None], lag + self.spread[:, None]
        mass = _mass(low, high, index, *self.table.cells)
        mass += np.where((low < 0) & (high > 0), np.take_along_axis(self.instant, index, axis=1), 0.0)
        with np.errstate(divide="ignore"):
            out = np.log(mass / (2 * self.spread[:, None]))
        return np.where(rt < self.limit[:, None], out, -np.inf)

    def choice_probability(self) -> np.ndarray:
        # F at the time limit, averaged over the non-decision times that lie before it.
        left = (self.limit - self.onset)[:, None]
        low = np.maximum(left - self.spread[:, None], 0.0)
        high = np.maximum(left + self.spread[:, None], 0.0)
        nodes, weights = ONSET_RULE
        at = low + 0.5 * (high - low) * (nodes + 1)
        share = (high - low) / (2 * self.spread[:, None])
        out = []
        for c in range(2):
            below = _mass(np.zeros(at.shape), at, np.full(at.shape, c), *self.table.cells)
            out.append(share[:, 0] * (self.instant[:, c] + below @ (0.5 * weights)))
        return np.stack(out, axis=1)

    def omission_probability(self) -> np.ndarray:
        return np.clip(1.0 - self.choice_probability().sum(axis=1), 0.0, 1.0)


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> Variable:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`."""
    column = {name: np.ascontiguousarray(theta[:, i], dtype=float) for i, name in enumerate(model.params)}
    zero = np.zeros(len(theta))
    half_width = column["a"] + shift
    start = (2 * column["z"] - 1) * column["a"]
    radius = column.get("sz", zero) * (1.0 if model.simulator == "full_ddm" else 2 * column["a"])
    low, high = np.maximum(start - radius, -half_width), np.minimum(start + radius, half_width)
    width = np.maximum(2 * radius, 1e-300)
    instant = np.stack([low - (start - radius), start + radius - high], axis=1) / width[:, None]
    # The earliest onset leaves the longest decision.
    decision_limit = limit - column["t"] + column["st"]
    inside = np.where(radius > 0, (high - low) / width, 1.0)
    shape = np.stack([column["v"], half_width, low, high, column.get("sv", zero), inside], axis=1)
    log_time, log_f = _tabulate(shape, decision_limit, N_NODES, *START_RULE)
    distance = np.stack([low + half_width, half_width - high], axis=1)
    table = make_table(zero, decision_limit, log_time, log_f, 0.5 * distance**2, model.choices)
    return Variable(column["t"], column["st"], limit, instant, table)


@njit(cache=True, nogil=True)
def _tabulate(shape, limit, n, nodes, weights):
    """Geometric time nodes, and log-densities there, averaged over the start points between the bounds."""
    n_theta = len(shape)
    log_time = np.empty((n_theta, n))
    log_f = np.empty((n_theta, 2, n))
    for i in range(n_theta):
        v, a, low, high, sv, inside = shape[i]
        last = min(a * a * DEPTH * 8 / (math.pi * math.pi), max(limit[i], 1e-9))
        nearest = max(min(a - high, a + low), 1e-3 * a)
        first = nearest * nearest / (2 * DEPTH)
        if abs(v) * a > STRONG_DRIFT:
            first, stop = drift_window(nearest, max(a - low, a + high), v, sv)
            last = min(last, stop)
        first = min(first, 0.5 * last)
        ratio = math.log(last / first) / (n - 1)
        for j in range(n):
            t = first * math.exp(ratio * j)
            log_time[i, j] = math.log(t)
            for c in range(2):
                side = 2.0 * c - 1.0
                near = a - high if side > 0 else a + low
                far = near + (high - low)
                # Starts from where almost nothing arrives at this time are left out, for the rule's sake.
                far = min(far, math.sqrt(near * near + 2 * t * (DEPTH + 4.0 * a * (abs(v) + sv))))
                top, total = -math.inf, 0.0
                for k in range(len(nodes)):
                    d = near + 0.5 * (far - near) * (nodes[k] + 1)
                    value = log_density_at(t, side, v, a, 0.0, side * (1.0 - d / a), sv)
                    if value > top:
                        total = total * math.exp(top - value) + 0.5 * weights[k]
                        top = value
                    elif value > -math.inf:
                        total += 0.5 * weights[k] * math.exp(value - top)
                share = inside * (far - near) / (high - low) if high > low else 1.0
                log_f[i, c, j] = top + math.log(total * share) if total > 0.0 else -math.inf
    return log_time, log_f


@njit(cache=True, nogil=True)
def _mass(low, high, index, log_time, scale, smooth, slope):
    """Probability of choice ``index`` and a decision time between ``low`` and ``high``."""
    out = np.zeros(low.shape)
    n = log_time.shape[1]
    for b in range(low.shape[0]):
        for i in range(low.shape[1]):
            c = index[b, i]
            begin = max(math.log(max(low[b, i], 1e-300)), log_time[b, 0])
            end = min(math.log(max(high[b, i], 1e-300)), log_time[b, n - 1])
            if begin >= end:
                continue
            j = max(np.searchsorted(log_time[b], begin, side="right") - 1, 0)
            while j < n - 1 and log_time[b, j] < end:
                u0, u1 = log_time[b, j], log_time[b, j + 1]
                left, right = max(begin, u0), min(end, u1)
                for node, weight in RULE:
                    u = left + node * (right - left)
                    f0, f1, s0, s1 = smooth[b, c, j], smooth[b, c, j + 1], slope[b, c, j], slope[b, c, j + 1]
                    value = hermite((u - u0) / (u1 - u0), u1 - u0, f0, f1, s0, s1) - scale[b, c] * math.exp(-u)
                    out[b, i] += weight * (right - left) * math.exp(value + u)
                j += 1
    return out
