"""Exact densities of one-particle, two-choice models with Gaussian noise.

The process is dX = (mu(t) - g X) dt + dW between the bounds +-b(t), with continuous mu and b.
Bounds and drifts are ssm-simulators' registered functions, called as its simulators call them. This file
turns them into what `lanline.engines.spectral` needs: time nodes that lie close where something changes
quickly, and integrals over the steps between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit

from lanline.engines.spectral import sine_tables, solve
from lanline.engines.tables import Table, make_table
from lanline.models import DEADLINE_SUFFIX, Model

_SIMULATORS = ("ddm", "ddm_flexbound", "ddm_flex", "ddm_flex_leak", "ornstein_uhlenbeck")
# Registered drifts without jumps in time; None is a constant drift.
_DRIFTS = (None, "constant", "gamma_drift", "attend_drift", "attend_drift_simple", "conflict_ds_drift")
# Their spotlight shrinks to nothing within a trial, where the drift all but jumps.
_NEARLY_JUMPING = ("shrink_spot_extended", "shrink_spot_simple_extended")
# Odd numbers of nodes, for a constant drift and for one that changes in time.
N_NODES = 97
N_NODES_DRIFT = 193
# The first node lies where the nearer bound is this many units of distance^2 / (2 t) away: log f is about -28
# there.
START = 30.0
# Nodes end where the survival probability has fallen to about exp(-END), or where the bounds have all but
# met.
END = 45.0
CLOSED = 1e-3
# Relative spread of the start below which the sine series does not resolve it; starts within the bounds of
# the registry are twice as wide when they first come near a bound.
UNRESOLVED = 0.012
# Relative step of numerical derivatives in time, and the two-point Gauss-Legendre rule.
EPSILON = 1e-4
GAUSS = 0.5 - math.sqrt(3) / 6
LEGENDRE = np.polynomial.legendre.leggauss(8)


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return (
        model.simulator in _SIMULATORS
        and model.drift in _DRIFTS
        and model.name.removesuffix(DEADLINE_SUFFIX) not in _NEARLY_JUMPING
        and {"v", "a", "z", "t"} <= set(model.params)
    )


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
    n_nodes = N_NODES if model.drift is None else N_NODES_DRIFT
    log_time = np.empty((len(theta), n_nodes))
    log_f = np.empty((len(theta), 2, n_nodes))
    scale = np.empty((len(theta), 2))
    onset = theta[:, model.params.index("t")].astype(float)
    decision_limit = limit - onset
    for i, process in enumerate(processes(model, theta, shift)):
        log_time[i], log_f[i], scale[i] = tabulate(process, decision_limit[i], n_nodes)
    return make_table(onset, decision_limit, log_time, log_f, scale, model.choices)


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


def tabulate(process: Process, limit: float, n_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log time nodes (N,), log-densities of decision time at the lower and upper bound (2, N), and A (2,)."""
    time = _nodes(process, max(limit, 1e-9), n_nodes)
    clock, beta, gamma, log_factor, m, k, log_bound = _integrals(process, time)
    mean, spread = _free_gaussian(process, time[0])
    half_width = math.exp(log_bound[0])
    if spread < UNRESOLVED * half_width:
        # So short a limit that nothing has come near the bounds.
        return np.log(time), np.full((2, n_nodes), -np.inf), np.zeros(2)
    log_f = solve(_tables(), clock, beta, gamma, log_factor, m, k, mean / half_width, spread / half_width)
    log_f -= 2 * log_bound  # from a density of s to a density of t
    return np.log(time), log_f, _onset_scale(time, log_f)


@cache
def _tables() -> np.ndarray:
    return sine_tables()


def _free_gaussian(process: Process, t: float) -> tuple[float, float]:
    """Mean and standard deviation of X(t) without bounds, for small t."""
    g = process.leak
    nodes, weights = LEGENDRE
    r = 0.5 * t * (nodes + 1)
    mean = process.start * math.exp(-g * t) + 0.5 * t * np.sum(weights * np.exp(-g * (t - r)) * process.drift(r))
    variance = -math.expm1(-2 * g * t) / (2 * g) if abs(g) > 1e-9 else t
    return float(mean), math.sqrt(variance)


def _nodes(process: Process, limit: float, n_nodes: int) -> np.ndarray:
    """Time nodes (N,), closer together where something changes quickly."""
    at_zero = float(process.bound(np.zeros(1))[0])
    end = _closing_time(process, limit, CLOSED * at_zero)
    fine = _fine_grid(min((at_zero - abs(process.start)) ** 2 / START * 1e-2, 1e-3 * end), end)
    drift = process.drift(fine).astype(float)
    return _place_nodes(fine, process.bound(fine), drift, process.leak, process.start, n_nodes)


def _closing_time(process: Process, limit: float, closed: float) -> float:
    """The time limit, or the time at which the bounds fall below ``closed`` if that is earlier."""
    low, high = 0.0, limit
    for _ in range(3):
        grid = np.linspace(low, high, 401)
        below = process.bound(grid) < closed
        if not below.any():
            return high
        cell = int(np.argmax(below))
        low, high = grid[cell - 1], grid[cell]
    return low


@njit(cache=True)
def _fine_grid(first, end):
    """Times from ``first`` to ``end``: geometric from the onset, and towards the end, where bounds may
    meet."""
    n_start, n_end = 320, 100
    out = np.empty(n_start + n_end)
    rate = math.log(0.5 * end / first) / (n_start - 1)
    for i in range(n_start):
        out[i] = first * math.exp(rate * i)
    rate = math.log(1e-5 / 0.5) / (n_end - 1)
    for i in range(n_end):
        out[n_start + i] = end - 0.5 * end * math.exp(rate * (i + 1))
    out[-1] = end
    return out


@njit(cache=True)
def _place_nodes(fine, bound, drift, leak, start, n_nodes):
    """Spread nodes such that log t, log b, the clock, drift and pull change by similar amounts between
    them."""
    n = len(fine)
    begin, stop = n - 2, n - 1
    mean, decay, last_pull = 0.0, 0.0, 0.0
    position = np.zeros(n)
    for i in range(n):
        step = fine[i] - (fine[i - 1] if i > 0 else 0.0)
        width = max(bound[i], 1e-12)
        mean = mean * math.exp(-leak * step) + drift[i] * step
        distance = width - abs(start * math.exp(-leak * fine[i]) + mean)
        if i - 1 < begin and (distance <= 0.0 or distance * distance < 2 * START * fine[i]):
            begin = max(i - 1, 0)
        if i > 0:
            pull = leak * width * width + 0.5 * (width * width - bound[i - 1] * bound[i - 1]) / step
            position[i] = (
                position[i - 1]
                + math.log(fine[i] / fine[i - 1])
                + 2 * abs(math.log(width / max(bound[i - 1], 1e-12)))
                + step / (width * width) / (1 + 0.25 * max(decay, 0.0))
                + width * abs(drift[i] - drift[i - 1])
                + (abs(pull - last_pull) if i > 1 else 0.0)
            )
            last_pull = pull
        decay += (math.pi * math.pi / 8 / (width * width) - max(leak, 0.0)) * step
        if decay > END and i > begin + 1:
            stop = i
            break
    return np.interp(
        np.linspace(position[begin], position[stop], n_nodes), position[begin : stop + 1], fine[begin : stop + 1]
    )


def _integrals(process: Process, time: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `spectral.solve` needs over the steps between the nodes, in its order, and log b at the nodes."""
    at = _quadrature_times(time)
    b, b_early, b_late = np.split(process.bound(np.concatenate([at, at * (1 - EPSILON), at * (1 + EPSILON)])), 3)
    mu = process.drift(at).astype(float)
    return _step_integrals(time, b, (b_late - b_early) / (2 * EPSILON * at), mu, process.leak)


@njit(cache=True)
def _quadrature_times(time):
    """The nodes, then the two Gauss-Legendre points of each step."""
    n = len(time)
    out = np.empty(3 * n - 2)
    out[:n] = time
    for j in range(n - 1):
        width = time[j + 1] - time[j]
        out[n + j] = time[j] + GAUSS * width
        out[2 * n - 1 + j] = time[j + 1] - GAUSS * width
    return out


@njit(cache=True)
def _step_integrals(time, b, slope, mu, leak):
    n = len(time)
    m, k, log_bound, clock = np.empty((4, n))
    beta, gamma, log_factor = np.empty((3, n - 1))
    for j in range(n):
        m[j] = mu[j] * b[j]
        k[j] = leak * b[j] * b[j] + b[j] * slope[j]
        log_bound[j] = math.log(b[j])
    clock[0] = time[0] / (b[0] * b[0])
    for j in range(n - 1):
        half = 0.5 * (time[j + 1] - time[j])
        ticks, mk, kk, mm = 0.0, 0.0, 0.0, 0.0
        for i in (n + j, 2 * n - 1 + j):
            drift = mu[i]
            kappa = leak * b[i] + slope[i]
            ticks += half / (b[i] * b[i])
            mk += half * drift * kappa
            kk += half * kappa * kappa
            mm += half * drift * drift
        clock[j + 1] = clock[j] + ticks
        beta[j] = m[j + 1] - m[j] - mk
        gamma[j] = 0.5 * (kk - k[j + 1] + k[j])
        log_factor[j] = -0.5 * (mm - 2 * half * leak - log_bound[j + 1] + log_bound[j])
    return clock, beta, gamma, log_factor, m, k, log_bound


def _onset_scale(time: np.ndarray, log_f: np.ndarray) -> np.ndarray:
    """(2,) A of the onset t^(-3/2) exp(-A / t), from the first nodes."""
    if not np.isfinite(log_f[:, :2]).all():
        return np.zeros(2)
    rise = log_f[:, 1] - log_f[:, 0] + 1.5 * math.log(time[1] / time[0])
    return np.maximum(rise / (1 / time[0] - 1 / time[1]), 0.0)
