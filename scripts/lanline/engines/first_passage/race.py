"""Exact densities of races between independent diffusions above a floor: the first at the bound gives the choice.

ssm-simulators' ``race_*`` models: accumulator j starts at z_j a, drifts at the rate v_j >= 0 with unit noise, is held up
by a floor at 0 (a step below it ends at it), and all have one bound a - k t. With densities f_j and survival functions
S_j of the single accumulators, the density of (t, choice c) is f_c(t) prod_{j != c} S_j(t). The f_j come from
`lanline.engines.first_passage.reflected`, the S_j from integrals over what is to come, so that small ones keep their
relative precision.

For the target ``euler`` the bound lies further out by the mean overshoot, and so does the floor: a walk that is cut off
at 0 after each step stays below the process by as much as the lowest of its steps lies above the lowest point of the
path. Seen from that floor, start points are higher by one overshoot and bounds by two.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lanline.engines.first_passage.reflected import CLOCK, EDGES, LAGRANGE, POINTS, panels, solve
from lanline.engines.tables import RULE, Table, hermite, make_table
from lanline.models import Model

SIMULATOR = "race_model"
_BOUNDARIES = ("constant", "angle")
# Nodes until the time limit, and after it, where only the survival at the limit is taken from.
N_NODES, N_AFTER = 128, 49
# Log-densities below -START, and joint survival below exp(-END), are left to extrapolation.
START, END = 36.0, 40.0
# Bounds that rise are followed until they are this many times as high.
HIGHEST = 12.0
# Above this the survival at the last node is 1 minus what has come before, below it the density over its decay.
MUCH_LEFT = 1e-4


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return model.simulator == SIMULATOR and model.boundary in _BOUNDARIES


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> Table:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`."""
    n = len(model.choices)
    column = {name: np.asarray(theta[:, i], dtype=float) for i, name in enumerate(model.params)}
    a, onset = column["a"], column["t"]
    zero = np.zeros(len(theta))
    fall = np.tan(column["theta"]) if "theta" in column else zero
    drift = np.stack([column[f"v{j}"] for j in range(n)], axis=1)
    share = np.stack([column.get(f"z{j}", column.get("z", zero)) for j in range(n)], axis=1)
    start = share * a[:, None] + shift
    decision_limit = limit - onset
    log_time, log_f = _tabulate(
        drift, start, a + 2 * shift, fall, np.maximum(decision_limit, 1e-9), (CLOCK, EDGES, *panels()), LAGRANGE
    )
    scale = 0.5 * (a[:, None] + 2 * shift - start) ** 2
    return make_table(onset, decision_limit, log_time, log_f, scale, model.choices)


@njit(cache=True, nogil=True)
def _tabulate(drift, start, bound, fall, limit, tables, lagrange):
    """(B, N) log time nodes and (B, C, N) log-densities of time and choice."""
    n_theta, n = drift.shape
    log_time, log_f = np.empty((n_theta, N_NODES)), np.empty((n_theta, n, N_NODES))
    for b in range(n_theta):
        a, k = bound[b], fall[b]
        bend = k * a
        n_panels = len(tables[1]) - 1
        while 1 + bend * tables[1][n_panels] < 1 / HIGHEST:
            n_panels -= 1
        clock = tables[0][: n_panels * POINTS]
        height = a / (1 + bend * clock)
        time = clock * a * height
        smooth = np.empty((n, len(clock)))
        for j in range(n):
            smooth[j] = solve(start[b, j] / a, drift[b, j] * height, *tables)
        at = _nodes(smooth, drift[b], start[b], a, k, clock, time, limit[b])
        single, survival = np.empty((2, n, len(at)))
        for i in range(len(at)):
            s = at[i] / (a * (a - k * at[i]))
            weights, first = _weights(s, tables[1], n_panels, lagrange)
            for j in range(n):
                value = 0.0
                for m in range(POINTS):
                    value += weights[m] * smooth[j, first + m]
                single[j, i] = value + _factor(at[i], s, drift[b, j], start[b, j], a, k)
        for j in range(n):
            survival[j] = _log_survival(at, single[j], 0.5 * (a - start[b, j]) ** 2)
        for i in range(N_NODES):
            log_time[b, i] = math.log(at[i])
            together = 0.0
            for j in range(n):
                together += survival[j, i]
            for c in range(n):
                log_f[b, c, i] = single[c, i] + together - survival[c, i]
    return log_time, log_f


@njit(cache=True)
def _factor(t, s, v, x0, a, k):
    """Log of the density of the time t over exp of what `solve` returns at s."""
    y0, height = x0 / a, a - k * t
    log_jacobian = 0.5 * math.log(height / a) - 2 * math.log(height)
    exponent = v * (height - x0) - 0.5 * v * v * t + 0.5 * k * (height - a * y0 * y0)
    return log_jacobian + exponent - (1 - y0) ** 2 / (2 * s)


@njit(cache=True)
def _weights(s, edges, n_panels, lagrange):
    """Weights of the nodes of the panel of ``s``, and the first of these nodes."""
    panel = min(np.searchsorted(edges, s, side="right") - 1, n_panels - 1)
    u = (s - edges[panel]) / (edges[panel + 1] - edges[panel])
    weights = np.zeros(POINTS)
    for m in range(POINTS):
        for power in range(POINTS - 1, -1, -1):
            weights[m] = weights[m] * u + lagrange[power, m]
    return weights, panel * POINTS


@njit(cache=True)
def _nodes(smooth, drift, start, a, k, clock, time, limit):
    """Times between which log t and the log of the joint survival change by similar amounts."""
    n, size = smooth.shape
    log_f, survival = np.empty((n, size)), np.zeros(size)
    for j in range(n):
        for i in range(size):
            log_f[j, i] = smooth[j, i] + _factor(time[i], clock[i], drift[j], start[j], a, k)
        left = math.exp(log_f[j, size - 1]) * time[size - 1]
        survival[size - 1] -= math.log(left + 1e-300)
        for i in range(size - 2, -1, -1):
            width = time[i + 1] - time[i]
            left += 0.5 * width * (math.exp(log_f[j, i]) + math.exp(log_f[j, i + 1]))
            survival[i] -= math.log(left + 1e-300)
    begin, end = 0, size - 1
    while begin < size - 3 and log_f[:, begin + 1].max() < -START:
        begin += 1
    while end > begin + 2 and survival[end - 1] > END:
        end -= 1
    position = np.zeros(size)
    for i in range(begin + 1, size):
        gone = max(survival[i], 0.0)
        change = max(gone - max(survival[i - 1], 0.0), 0.0)
        position[i] = position[i - 1] + math.log(time[i] / time[i - 1]) + DECAY * change / (1 + 0.25 * gone)
    split = max(min(limit, 0.98 * time[end]), 1.001 * time[begin])
    middle = np.interp(split, time, position)
    out = np.empty(N_NODES + N_AFTER - 1)
    out[:N_NODES] = np.interp(np.linspace(position[begin], middle, N_NODES), position, time)
    # A slow accumulator is followed to its own end, whoever has been first.
    out[N_NODES - 1 :] = np.interp(np.linspace(middle, position[size - 1], N_AFTER), position, time)
    out[N_NODES - 1] = split
    return out


DECAY = 1.0


@njit(cache=True)
def _log_survival(time, log_f, scale):
    """Log of the probability of a later time, at the nodes."""
    size = len(time)
    mass, slope = np.zeros(size), np.empty(size)
    u, smooth = np.log(time), log_f + scale / time
    for i in range(size):
        low, high = max(i - 1, 0), min(i + 1, size - 1)
        slope[i] = (smooth[high] - smooth[low]) / (u[high] - u[low])
        if 0 < i < size - 1:
            left, right = u[i] - u[i - 1], u[i + 1] - u[i]
            before, after = (smooth[i] - smooth[i - 1]) / left, (smooth[i + 1] - smooth[i]) / right
            slope[i] = (before * right + after * left) / (left + right)
    for i in range(size - 1):
        width = u[i + 1] - u[i]
        for node, weight in RULE:
            t = math.exp(u[i] + node * width)
            value = hermite(node, width, smooth[i], smooth[i + 1], slope[i], slope[i + 1]) - scale / t
            mass[i] += weight * width * t * math.exp(value)
    last = size - 1
    left = 1.0 - mass.sum()
    if left < MUCH_LEFT:
        decay = (log_f[last - 1] - log_f[last]) / (time[last] - time[last - 1])
        left = math.exp(log_f[last]) / max(decay, 1 / time[last])
    out = np.empty(size)
    left = max(left, 1e-300)
    for i in range(last, -1, -1):
        left += mass[i]
        out[i] = math.log(left)
    return out
