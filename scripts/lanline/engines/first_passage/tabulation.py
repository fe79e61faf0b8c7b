"""The density of one process at its time nodes: what the solver needs, and what its answer means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lanline.engines.compiled import njit
from lanline.engines.first_passage.nodes import CLOSED, closing_time, jumps_of, time_nodes
from lanline.engines.first_passage.process import Process, variance_at
from lanline.engines.first_passage.solver import PARTS, solve

LEGENDRE = np.polynomial.legendre.leggauss(8)
# The process is evaluated at six points of each interval. A polynomial through them gives integrals up to, and
# derivatives at, the last five.
_POINTS = np.concatenate([[0.0], PARTS])
_TO_COEFFICIENTS = np.linalg.inv(np.vander(_POINTS, increasing=True))
INTEGRATE = np.stack([PARTS ** (j + 1) / (j + 1) for j in range(6)], axis=1) @ _TO_COEFFICIENTS
DIFFERENTIATE = np.stack([j * PARTS ** max(j - 1, 0) for j in range(6)], axis=1) @ _TO_COEFFICIENTS
# The drift at the ends of an interval is taken from this far inside, as there may be a jump at the end.
INSIDE = 1e-3


@dataclass(frozen=True)
class Resolution:
    """Numbers of time nodes of a table and of cells between the bounds; cells are a multiple of 4."""

    nodes: int
    cells: int


def tabulate(
    process: Process, limit: float, resolution: Resolution
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Densities of decision time of one process until ``limit`` or until next to nothing is left.

    Returns:
        Log time nodes (N,); log-densities at the lower and upper bound (2, N); A (2,) of the onset exp(-A / t); the
        probability of no response until the last node.
    """
    at_zero = float(process.bound(np.zeros(1))[0])
    end = closing_time(process, max(limit, 1e-9), CLOSED * at_zero)
    jumps = jumps_of(process.drift, end) if process.jumps else np.empty(0)
    time = time_nodes(process, at_zero, end, jumps, resolution.nodes)
    step = np.diff(time)
    inside = time[:-1, None] + step[:, None] * _POINTS
    b = process.bound(inside.ravel()).reshape(inside.shape)
    inside[:, 0] += INSIDE * step
    inside[:, -1] -= INSIDE * step
    mu = process.drift(inside.ravel()).astype(float).reshape(inside.shape)
    rate, slope, offset, width, mean, variance = _coefficients(
        time, b, mu, process.leak, _free_mean(process, time[0], jumps), INTEGRATE, DIFFERENTIATE
    )
    # Until the first node the bounds are all but straight: the probability that a bridge meets one of them.
    distance = at_zero + process.start * np.array([1.0, -1.0])
    lower, upper = 2 * distance * width[0] / time[0]
    log_slope, log_left = solve(
        time,
        rate,
        slope,
        offset,
        lower,
        upper,
        mean[-1] / width[-1],
        variance[-1] / width[-1] ** 2,
        distance.min() / at_zero,
        resolution.cells,
    )
    gap = np.stack([-width, width]) - mean
    log_f = log_slope - np.log(2 * width) - 0.5 * (gap * gap / variance + np.log(2 * math.pi * variance))
    return np.log(time), log_f, 0.5 * distance**2, math.exp(min(log_left, 0.0))


def _free_mean(process: Process, t: float, jumps: np.ndarray) -> float:
    """Mean of X(t) without bounds, for small t."""
    nodes, weights = LEGENDRE
    mean, edges = process.start * math.exp(-process.leak * t), [0.0, *jumps[jumps < t], t]
    for begin, end in pairwise(edges):
        r = begin + 0.5 * (end - begin) * (nodes + 1)
        mean += 0.5 * (end - begin) * float(weights @ (np.exp(process.leak * (r - t)) * process.drift(r)))
    return mean


@njit(cache=True)
def _coefficients(time, b, mu, leak, mean, integrate, differentiate):
    """What `solver.solve` needs: 1 / b^2 and A at five points of each interval, (N - 1, 5) each; then b, and mean and
    variance of X without bounds, at the nodes."""
    n_steps, n = len(time) - 1, integrate.shape[0]
    rate, slope, offset = np.empty((3, n_steps, n))
    width, means, variances = np.empty((3, n_steps + 1))
    variance = variance_at(time[0], leak)
    width[0], means[0], variances[0] = b[0, 0], mean, variance
    pushed = np.empty(n + 1)
    for i in range(n_steps):
        step = time[i + 1] - time[i]
        pushed[0] = mu[i, 0]
        for j in range(n):
            pushed[j + 1] = mu[i, j + 1] * math.exp(leak * step * PARTS[j])
        for j in range(n):
            moved, grown = 0.0, 0.0
            for k in range(n + 1):
                moved += integrate[j, k] * pushed[k]
                grown += differentiate[j, k] * b[i, k]
            at = b[i, j + 1]
            here = (mean + step * moved) * math.exp(-leak * step * PARTS[j])
            variance = variance_at(time[i] + step * PARTS[j], leak)
            rate[i, j] = 1 / (at * at)
            slope[i, j] = at * (leak * at + grown / step - at / variance)
            offset[i, j] = at * (here / variance - mu[i, j + 1])
        mean = here
        width[i + 1], means[i + 1], variances[i + 1] = at, here, variance
    return rate, slope, offset, width, means, variances
