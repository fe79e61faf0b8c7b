"""Exact densities of races between independent diffusions above a floor: the first at the bound gives the choice.

ssm-simulators' ``race_*`` models: accumulator j starts at z_j a, drifts at the rate v_j with unit noise, is held up by
a floor at 0 (a step below it ends at it), and all have one bound a - k t. With densities f_j and survival functions
S_j of the single accumulators, the density of (t, choice c) is f_c(t) prod_{j != c} S_j(t). The f_j come from
`lanline.engines.first_passage.reflected`, the S_j from integrals over what is to come, so that small ones keep their
relative precision.

For the target ``euler`` the bound lies further out by the mean overshoot, and so does the floor: a walk that is cut off
at 0 after each step is held up by the lowest of its steps, which lies above the lowest point of the path. Seen from
that floor, start points are higher by one overshoot and bounds by two.
"""

from __future__ import annotations

import math

import numpy as np

from lanline.engines.compiled import njit
from lanline.engines.first_passage.reflected import CLOCK, EDGES, LAGRANGE, POINTS, panels, solve
from lanline.engines.tables import Table, cell_masses, make_table, slopes
from lanline.models import Model

SIMULATOR = "race_model"
_BOUNDARIES = ("constant", "angle")
# Nodes until the time limit, and after it, from which only the survival until then is taken.
N_NODES, N_AFTER = 128, 49
# Log-densities below -START, and a joint survival below exp(-END), are left to extrapolation.
START, END = 36.0, 40.0
# Bounds that rise are followed until they are this many times as high.
HIGHEST = 12.0
# A survival at the very end that is above this is 1 minus what has come before; below it, the density over its decay.
MUCH_LEFT = 1e-4


def covers(model: Model) -> bool:
    """Whether this family has the density of ``model``."""
    return model.simulator == SIMULATOR and model.boundary in _BOUNDARIES


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float, refine: int = 1) -> Table:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`.

    ``refine`` times as many nodes as usual make a table that the usual one can be judged by.
    """
    column = {name: np.asarray(theta[:, i], dtype=float) for i, name in enumerate(model.params)}
    zero = np.zeros(len(theta))
    accumulators = range(len(model.choices))
    drift = np.stack([column[f"v{j}"] for j in accumulators], axis=1)
    share = np.stack([column.get(f"z{j}", column.get("z", zero)) for j in accumulators], axis=1)
    fall = np.tan(column.get("theta", zero))
    start, bound = share * column["a"][:, None] + shift, column["a"] + 2 * shift
    decision_limit = limit - column["t"]
    sizes = (refine * N_NODES, refine * N_AFTER)
    until_limit = np.maximum(decision_limit, 1e-9)
    log_time, log_f = _single(drift, start, bound, fall, until_limit, sizes, (CLOCK, EDGES, *panels()))
    scale = 0.5 * (bound[:, None] - start) ** 2
    log_s = _log_survival(log_time, log_f, scale)
    joint = log_f - log_s + log_s.sum(axis=1, keepdims=True)
    until = slice(sizes[0])
    return make_table(column["t"], decision_limit, log_time[:, until], joint[..., until], scale, model.choices)


def _log_survival(log_time: np.ndarray, log_f: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(B, C, N) log-probability that an accumulator finishes later, at the nodes."""
    smooth = np.maximum(log_f + scale[:, :, None] * np.exp(-log_time)[:, None, :], -1e4)
    mass = cell_masses(log_time, scale, smooth, slopes(log_time, smooth))
    end = np.exp(log_time[:, None, -2:])
    decay = -np.diff(log_f[..., -2:], axis=-1) / np.diff(end, axis=-1)
    left = 1.0 - mass.sum(axis=-1, keepdims=True)
    at_end = np.exp(log_f[..., -1:]) / np.maximum(decay, 1 / end[..., 1:])
    left = np.where(left > MUCH_LEFT, left, at_end)
    to_come = np.cumsum(np.concatenate([left, mass[..., ::-1]], axis=-1), axis=-1)[..., ::-1]
    return np.log(np.maximum(to_come, 1e-300))


@njit(cache=True, nogil=True)
def _single(drift, start, bound, fall, limit, sizes, tables):
    """(B, N) log time nodes and (B, C, N) log-densities of the single accumulators."""
    n_theta, n = drift.shape
    size = sizes[0] + sizes[1] - 1
    log_time, log_f = np.empty((n_theta, size)), np.empty((n_theta, n, size))
    edges = tables[1]
    for b in range(n_theta):
        a, k = bound[b], fall[b]
        n_panels = len(edges) - 1
        while 1 + k * a * edges[n_panels] < 1 / HIGHEST:
            n_panels -= 1
        clock = tables[0][: n_panels * POINTS]
        height = a / (1 + k * a * clock)
        smooth = np.empty((n, len(clock)))
        for j in range(n):
            smooth[j] = solve(start[b, j] / a, drift[b, j] * height, *tables)
        time = _nodes(smooth, drift[b], start[b], a, k, clock, limit[b], sizes)
        for i in range(size):
            s = time[i] / (a * (a - k * time[i]))
            weights, first = _weights(s, edges, n_panels)
            log_time[b, i] = math.log(time[i])
            for j in range(n):
                value = 0.0
                for m in range(POINTS):
                    value += weights[m] * smooth[j, first + m]
                log_f[b, j, i] = value + _factor(time[i], s, drift[b, j], start[b, j], a, k)
    return log_time, log_f


@njit(cache=True)
def _factor(t, s, v, x0, a, k):
    """Log of the density of the time t over exp of what `solve` returns at s."""
    y0, height = x0 / a, a - k * t
    log_jacobian = 0.5 * math.log(height / a) - 2 * math.log(height)
    exponent = v * (height - x0) - 0.5 * v * v * t + 0.5 * k * (height - a * y0 * y0)
    return log_jacobian + exponent - (1 - y0) ** 2 / (2 * s)


@njit(cache=True)
def _weights(s, edges, n_panels):
    """Weights of the nodes of the panel of ``s`` in interpolation, and the first of these nodes."""
    panel = min(np.searchsorted(edges, s, side="right") - 1, n_panels - 1)
    u = (s - edges[panel]) / (edges[panel + 1] - edges[panel])
    weights = np.zeros(POINTS)
    for m in range(POINTS):
        for power in range(POINTS - 1, -1, -1):
            weights[m] = weights[m] * u + LAGRANGE[power, m]
    return weights, panel * POINTS


@njit(cache=True)
def _nodes(smooth, drift, start, a, k, clock, limit, sizes):
    """Times between which log t and the logarithm of the joint survival change by similar amounts."""
    n, size = smooth.shape
    time = clock * a * a / (1 + k * a * clock)
    highest, gone = np.full(size, -math.inf), np.zeros(size)
    for j in range(n):
        left, later = 0.0, 0.0
        for i in range(size - 1, -1, -1):
            value = smooth[j, i] + _factor(time[i], clock[i], drift[j], start[j], a, k)
            highest[i] = max(highest[i], value)
            width = time[i + 1] - time[i] if i < size - 1 else 2 * time[i]
            left += 0.5 * width * (math.exp(value) + later)
            later = math.exp(value)
            gone[i] -= min(math.log(left + 1e-300), 0.0)
    begin, end = 0, size - 1
    while begin < size - 3 and highest[begin + 1] < -START:
        begin += 1
    while end > begin + 2 and gone[end - 1] > END:
        end -= 1
    position = np.zeros(size)
    for i in range(begin + 1, size):
        change = (gone[i] - gone[i - 1]) / (1 + 0.25 * gone[i])
        position[i] = position[i - 1] + math.log(time[i] / time[i - 1]) + change
    split = max(min(limit, 0.98 * time[end]), 1.001 * time[begin])
    middle = np.interp(split, time, position)
    before = np.interp(np.linspace(position[begin], middle, sizes[0]), position, time)
    # A slow accumulator is followed to its own end, whoever has been first.
    after = np.interp(np.linspace(middle, position[size - 1], sizes[1]), position, time)
    before[-1] = split
    return np.append(before, after[1:])
