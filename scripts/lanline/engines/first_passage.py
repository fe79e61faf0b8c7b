"""Exact densities of one-particle, two-choice models with Gaussian noise: dX = (mu(t) - g X) dt + dW between +-b(t).

Bounds and drifts are ssm-simulators' registered functions, called as its simulators call them. This file turns them
into what `lanline.engines.spectral` needs: time nodes that lie close where something changes quickly, and integrals over
the steps between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from lanline.engines.spectral import sine_tables, solve
from lanline.engines.tables import Table, make_table
from lanline.models import Model

_SIMULATORS = ("ddm", "ddm_flexbound", "ddm_flex", "ddm_flex_leak", "ornstein_uhlenbeck")
N_NODES = 160
# The first node lies where the nearer bound is this many units of distance^2 / (2 t) away: log f is about -28 there.
START = 30.0
# Nodes end where the survival probability has fallen to about exp(-END), or where the bounds have all but met.
END = 45.0
CLOSED = 1e-3
# Relative step of numerical derivatives in time, and the two-point Gauss-Legendre rule.
EPSILON = 1e-4
GAUSS = 0.5 - math.sqrt(3) / 6


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return model.simulator in _SIMULATORS and {"v", "a", "z", "t"} <= set(model.params)


@dataclass(frozen=True)
class Process:
    """One theta's process, in decision time.

    Attributes:
        bound: b(t) for an array of times.
        drift: mu(t) for an array of times.
        leak: g.
        start: x0.
    """

    bound: Callable[[np.ndarray], np.ndarray]
    drift: Callable[[np.ndarray], np.ndarray]
    leak: float
    start: float


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> Table:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.densities`."""
    log_time = np.empty((len(theta), N_NODES))
    log_f = np.empty((len(theta), 2, N_NODES))
    onset = theta[:, model.params.index("t")].astype(float)
    decision_limit = limit - onset
    for i, process in enumerate(processes(model, theta, shift)):
        log_time[i], log_f[i] = tabulate(process, decision_limit[i], N_NODES)
    return make_table(onset, decision_limit, log_time, log_f, model.choices)


def processes(model: Model, theta: np.ndarray, shift: float) -> list[Process]:
    """The process of each row of ``theta``, its bounds moved outwards by ``shift``."""
    from ssms.config import get_boundary_registry, get_drift_registry

    bound = get_boundary_registry().get(model.boundary)
    drift = get_drift_registry().get(model.drift or "constant")
    out = []
    for row in theta:
        values = dict(zip(model.params, (float(value) for value in row), strict=True))
        at_bound = {name: values[name] for name in bound["params"] if name in values}
        at_drift = {name: values[name] for name in drift["params"] if name in values}
        start = (2 * values["z"] - 1) * float(bound["fun"](t=np.zeros(1), **at_bound)[0])
        out.append(
            Process(
                bound=lambda t, f=bound["fun"], p=at_bound: f(t=t, **p) + shift,
                drift=lambda t, f=drift["fun"], p=at_drift: f(t=t, **p),
                leak=values.get("g", 0.0),
                start=start,
            )
        )
    return out


def tabulate(process: Process, limit: float, n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Log time nodes (N,) and the log-densities of decision time at the lower and the upper bound (2, N)."""
    time, jumps = _nodes(process, max(limit, 1e-9), n_nodes)
    clock, beta, gamma, log_factor, jump, m, k, log_bound = _integrals(process, time, jumps)
    mean, spread = _free_gaussian(process, time[0])
    half_width = math.exp(log_bound[0])
    log_f = np.empty((2, n_nodes))
    solve(
        _tables(), clock, beta, gamma, log_factor, jump, m, k, mean / half_width, spread / half_width, log_f
    )
    log_f -= 2 * log_bound  # from a density of s to a density of t
    return np.log(time), _fill_onset(time, log_f)


@cache
def _tables() -> np.ndarray:
    return sine_tables()


def _free_gaussian(process: Process, t: float) -> tuple[float, float]:
    """Mean and standard deviation of X(t) without bounds, for small t."""
    g = process.leak
    nodes, weights = np.polynomial.legendre.leggauss(8)
    r = 0.5 * t * (nodes + 1)
    mean = process.start * math.exp(-g * t) + 0.5 * t * np.sum(weights * np.exp(-g * (t - r)) * process.drift(r))
    variance = -math.expm1(-2 * g * t) / (2 * g) if abs(g) > 1e-9 else t
    return float(mean), math.sqrt(variance)


def _nodes(process: Process, limit: float, n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Time nodes (N,), and the indices of those at which the drift jumps."""
    end = _closing_time(process, limit)
    first = min((process.bound(np.zeros(1))[0] - abs(process.start)) ** 2 / START * 1e-2, 1e-3 * end)
    # A fine grid, geometric from the onset and towards the time at which the bounds meet.
    fine = np.unique(
        np.concatenate([np.geomspace(first, end, 400), end - np.geomspace(1e-5 * end, 0.5 * end, 150), [end]])
    )
    bound = np.maximum(process.bound(fine), 1e-12)
    drift = process.drift(fine)
    step = np.diff(fine, prepend=0.0)
    mean = process.start * np.exp(-process.leak * fine) + np.cumsum(drift * step)
    distance = bound - np.abs(mean)
    reached = np.flatnonzero((distance <= 0) | (distance**2 < 2 * START * fine))
    begin = max(reached[0] - 1, 0) if len(reached) else len(fine) - 2
    decay = np.cumsum((math.pi**2 / 8 / bound**2 - max(process.leak, 0.0)) * step)
    over = np.flatnonzero(decay > END)
    stop = over[0] if len(over) else len(fine) - 1
    stop = max(stop, begin + 1)
    fine, bound, drift, step = (x[begin : stop + 1] for x in (fine, bound, drift, step))
    log_bound = np.log(bound)
    # Nodes are spread such that between two of them log t, log b, the clock and the drift change by similar amounts.
    clock = np.diff(fine, prepend=fine[0]) / bound**2
    change = (
        np.diff(np.log(fine), prepend=math.log(fine[0]))
        + 2 * np.abs(np.diff(log_bound, prepend=log_bound[0]))
        + clock
        + np.abs(np.diff(drift, prepend=drift[0])) * bound
    )
    position = np.cumsum(change)
    nodes = np.interp(np.linspace(0, position[-1], n_nodes), position, fine)
    return _with_jumps(process, fine, drift, nodes)


def _closing_time(process: Process, limit: float) -> float:
    """The time limit, or the time at which the bounds have all but met if that is earlier."""
    closed = CLOSED * process.bound(np.zeros(1))[0]
    grid = np.linspace(0, limit, 1001)[1:]
    below = np.flatnonzero(process.bound(grid) < closed)
    if len(below) == 0:
        return limit
    high = grid[below[0]]
    low = high - grid[0]
    for _ in range(60):
        middle = 0.5 * (low + high)
        if process.bound(np.array([middle]))[0] < closed:
            high = middle
        else:
            low = middle
    return low


def _with_jumps(
    process: Process, fine: np.ndarray, drift: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the nearest node onto each time at which the drift jumps."""
    at = []
    for j in np.flatnonzero(np.abs(np.diff(drift)) > 1e-2):
        low, high = fine[j], fine[j + 1]
        before, after = drift[j], drift[j + 1]
        for _ in range(60):
            middle = 0.5 * (low + high)
            value = process.drift(np.array([middle, fine[-1]]))[0]
            if abs(value - before) < abs(value - after):
                low, before = middle, value
            else:
                high, after = middle, value
        if abs(after - before) > 1e-3:
            nearest = 1 + int(np.argmin(np.abs(nodes[1:-1] - high)))
            nodes[nearest] = high
            at.append(nearest)
    return nodes, np.array(sorted(set(at)), dtype=int)


def _integrals(process: Process, time: np.ndarray, jumps: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `spectral.solve` needs over the steps between the nodes, in its order, and log b at the nodes."""
    n = len(time)
    g = process.leak
    width = np.diff(time)
    inner = np.concatenate([time[:-1] + GAUSS * width, time[:-1] + (1 - GAUSS) * width])
    at = np.concatenate([time, inner])
    early, late = at * (1 - EPSILON), at * (1 + EPSILON)
    b, b_early, b_late = np.split(process.bound(np.concatenate([at, early, late])), 3)
    slope = (b_late - b_early) / (late - early)
    # At a node the drift is taken just before and just after, in case it jumps there.
    nudge = 1e-9 * time
    mu_before, mu_after, mu_inner = np.split(
        process.drift(np.concatenate([time - nudge, time + nudge, inner, time[-1:] * 2]))[:-1], [n, 2 * n]
    )
    b_node, k_node = b[:n], g * b[:n] ** 2 + b[:n] * slope[:n]
    b_inner, kappa = b[n:], g + slope[n:] / b[n:]

    def integral(values: np.ndarray) -> np.ndarray:
        return 0.5 * width * (values[: n - 1] + values[n - 1 :])

    m = mu_before * b_node
    jump = np.zeros(n - 1)
    jump[jumps] = (mu_after - mu_before)[jumps] * b_node[jumps]
    beta = m[1:] - (m[:-1] + jump) - integral(mu_inner * b_inner * kappa)
    gamma = 0.5 * (integral((kappa * b_inner) ** 2) - np.diff(k_node))
    log_factor = -0.5 * (integral(mu_inner**2) - g * width - np.diff(np.log(b_node)))
    ticks = integral(1 / b_inner**2)
    first = time[0] / b_node[0] ** 2
    return first + np.concatenate([[0.0], np.cumsum(ticks)]), beta, gamma, log_factor, jump, m, k_node, np.log(b_node)


def _fill_onset(time: np.ndarray, log_f: np.ndarray) -> np.ndarray:
    """Continue each density from its first reliable nodes back to the onset by f ~ t^(-3/2) exp(-A / t)."""
    for f in log_f:
        known = np.flatnonzero(np.isfinite(f))
        if len(known) < 2:
            f[:] = -np.inf
            continue
        i, j = known[0], known[1]
        scale = (f[j] - f[i] + 1.5 * math.log(time[j] / time[i])) / (1 / time[i] - 1 / time[j])
        before = time[:i]
        f[:i] = f[i] - 1.5 * np.log(before / time[i]) - max(scale, 0.0) * (1 / before - 1 / time[i])
    return log_f
