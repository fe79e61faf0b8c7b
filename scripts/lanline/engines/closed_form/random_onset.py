"""Exact densities of the drift diffusion model with a non-decision time drawn for each trial from a smooth law.

The density of a response is the density f of decision times, convolved with that of the non-decision time,

    g(rt, c) = int f(u, c) k(rt - u) du,

by Gauss-Legendre quadrature over the cells of a table of f, divided where k is narrower than a cell. ssm-simulators
draws from N(t, st^2) in ``ddm_normal_st``, from N(mt, st^2) above 0 in ``ddm_truncnormt``, and from a Rayleigh
distribution with the mode st in ``ddm_rayleight``. A normal non-decision time may be negative; a response at or before
0 counts as an omission.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from lanline.engines.closed_form import ddm
from lanline.engines.closed_form.drawing import draw_in_time
from lanline.engines.compiled import njit
from lanline.engines.tables import RULE, Table, hermite
from lanline.models import DEADLINE_SUFFIX, Model

# By name, because ssm-simulators' registry holds the distribution of the non-decision time as code.
_MODELS = ("ddm_normal_st", "ddm_truncnormt", "ddm_rayleight")
# Non-decision times further out than this many standard deviations do not occur.
REACH = 11.0
# Cells of the quadrature are not wider than so many standard deviations.
FINEST = 1.0


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return model.name.removesuffix(DEADLINE_SUFFIX) in _MODELS


@dataclass(frozen=True)
class SmoothOnset:
    """Densities of B thetas; see `lanline.engines.Densities`.

    Attributes:
        law: (B, 4) mean and standard deviation of the normal distribution that the non-decision time comes from, its
            lower limit, and the probability of lying above it; mean nan for a Rayleigh distribution with the second
            as its mode.
        limit: (B,) largest response time, seconds.
        table: decision times.
    """

    law: np.ndarray
    limit: np.ndarray
    table: Table

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        mean, deviation, lowest, above = self.law.T[:, :, None]

        def draw() -> tuple[np.ndarray, np.ndarray]:
            time, choice = self.table.sample(n, rng)
            uniform = 1.0 - rng.random(time.shape)
            normal = mean - deviation * ndtri(above * uniform)
            rayleigh = deviation * np.sqrt(-2 * np.log(uniform))
            return time + np.where(np.isnan(mean), rayleigh, np.maximum(normal, lowest)), choice

        return draw_in_time(draw, self.limit, self.choice_probability().sum(axis=1), n)

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        index = np.searchsorted(self.table.choices, choice)
        with np.errstate(divide="ignore"):
            out = np.log(_convolve(rt, index, self.law, False, *self.table.cells))
        return np.where((rt > 0) & (rt < self.limit[:, None]), out, -np.inf)

    def choice_probability(self) -> np.ndarray:
        index = np.tile(np.arange(2), (len(self.limit), 1))
        until, not_before = (
            _convolve(np.broadcast_to(time[:, None], index.shape), index, self.law, True, *self.table.cells)
            for time in (self.limit, np.zeros(len(self.limit)))
        )
        return np.maximum(until - not_before, 0.0)

    def omission_probability(self) -> np.ndarray:
        return np.clip(1.0 - self.choice_probability().sum(axis=1), 0.0, 1.0)


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> SmoothOnset:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`."""
    column = {name: np.asarray(theta[:, i], dtype=float) for i, name in enumerate(model.params)}
    zero, deviation = np.zeros(len(theta)), column["st"]
    if "mt" in column:
        parts = [column["mt"], deviation, zero, ndtr(column["mt"] / deviation)]
    elif "t" in column:
        parts = [column["t"], deviation, np.full(len(theta), -np.inf), zero + 1.0]
    else:
        parts = [np.full(len(theta), np.nan), deviation, zero, zero + 1.0]
    law = np.stack(parts, axis=1)
    earliest = np.where(np.isnan(law[:, 0]), 0.0, np.maximum(law[:, 0] - REACH * deviation, law[:, 2]))
    decisions = {name: column[name] for name in ("v", "a", "z")}
    table = ddm.tabulate(decisions, limit - earliest, shift, model.choices)
    return SmoothOnset(law, limit, table)


@njit(cache=True)
def _law(u, mean, deviation, lowest, above, cumulative):
    """Density, or distribution function, of the non-decision time."""
    if math.isnan(mean):
        x = max(u, 0.0) / deviation
        return -math.expm1(-0.5 * x * x) if cumulative else x / deviation * math.exp(-0.5 * x * x)
    if u < lowest:
        return 0.0
    x = (u - mean) / deviation
    if cumulative:
        below = 0.5 * math.erfc(-x / math.sqrt(2.0))
        return max(below - (1.0 - above), 0.0) / above
    return math.exp(-0.5 * x * x) / (deviation * math.sqrt(2 * math.pi) * above)


@njit(cache=True, nogil=True)
def _convolve(at, index, law, cumulative, log_time, scale, smooth, slope):
    """(B, n) densities of response times, or probabilities of responses until then."""
    out = np.zeros(at.shape)
    n = log_time.shape[1]
    for b in range(at.shape[0]):
        mean, deviation, lowest, above = law[b]
        middle = 0.0 if math.isnan(mean) else mean
        earliest = max(middle - REACH * deviation, lowest)
        latest = middle + REACH * deviation
        for i in range(at.shape[1]):
            c = index[b, i]
            first, last = math.exp(log_time[b, 0]), math.exp(log_time[b, n - 1])
            begin = first if cumulative else max(at[b, i] - latest, first)
            end = min(at[b, i] - earliest, last)
            if begin >= end:
                continue
            j = max(int(np.searchsorted(log_time[b], math.log(begin), side="right")) - 1, 0)
            while j < n - 1:
                u0, u1 = log_time[b, j], log_time[b, j + 1]
                left, right = max(begin, math.exp(u0)), min(end, math.exp(u1))
                if left >= end:
                    break
                # Far before the time in question the distribution function is 1, whatever its width.
                flat = cumulative and right < at[b, i] - latest
                parts = 1 if flat else math.ceil((right - left) / (FINEST * deviation))
                for part in range(parts):
                    for node, weight in RULE:
                        t = left + (part + node) * (right - left) / parts
                        u = math.log(t)
                        f0, f1, s0, s1 = smooth[b, c, j], smooth[b, c, j + 1], slope[b, c, j], slope[b, c, j + 1]
                        value = hermite((u - u0) / (u1 - u0), u1 - u0, f0, f1, s0, s1) - scale[b, c] / t
                        k = _law(at[b, i] - t, mean, deviation, lowest, above, cumulative)
                        out[b, i] += weight * (right - left) / parts * math.exp(value) * k
                j += 1
    return out
