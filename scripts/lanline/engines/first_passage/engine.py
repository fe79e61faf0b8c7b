"""Exact densities of one-particle, two-choice models with Gaussian noise.

The process is dX = (mu(t) - g X) dt + dW between the bounds +-b(t); b is continuous, mu may jump. Bounds and
drifts are ssm-simulators' registered functions, called as its simulators call them. This file turns them into
what `lanline.engines.first_passage.solver` needs: time nodes that lie close where something changes quickly, with
the jumps among them, and the process at the times in between at which the solver wants it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

from lanline.engines.first_passage.solver import PARTS, solve
from lanline.engines.tables import Table, make_table
from lanline.models import Model

_SIMULATORS = ("ddm_flexbound", "ddm_flex", "ddm_flex_leak", "ornstein_uhlenbeck")
# Registered drifts that change smoothly, and those that jump. None is a constant drift.
_SMOOTH = ("gamma_drift", "attend_drift", "attend_drift_simple", "conflict_ds_drift")
_JUMPING = ("conflict_dsstimflex_drift", "conflict_stimflex_drift", "conflict_stimflexrel1_drift")


@dataclass(frozen=True)
class Resolution:
    """Numbers of time nodes of a table and of cells between the bounds; cells are a multiple of 4."""

    nodes: int
    cells: int


CONSTANT, CHANGING, JUMPING = Resolution(57, 48), Resolution(97, 96), Resolution(145, 96)
# The first node lies where the nearer bound is this many units of distance^2 / (2 t) away: log f is about -28
# there.
START = 30.0
# Nodes end where the survival probability has fallen to about exp(-END), or where the bounds have all but
# met.
END = 40.0
CLOSED = 1e-3
# Steps by which the search for jumps of the drift divides what is left, and the smallest jump that counts.
SEARCH, ROUNDS, SMALLEST_JUMP = 16, 9, 1e-3
# The density follows a jump like the square root of time. So nodes after it lie at (i / n)^4 of this part of
# b^2, and count for as much as GRADE units of what `_place_nodes` adds up.
AFTER_JUMP, GRADE = 0.1, 4.0
LEGENDRE = np.polynomial.legendre.leggauss(8)
# The process is evaluated at six points of each interval. A polynomial through them gives integrals up to, and
# derivatives at, the last five.
_POINTS = np.concatenate([[0.0], PARTS])
_TO_COEFFICIENTS = np.linalg.inv(np.vander(_POINTS, increasing=True))
INTEGRATE = np.stack([PARTS ** (j + 1) / (j + 1) for j in range(6)], axis=1) @ _TO_COEFFICIENTS
DIFFERENTIATE = np.stack([j * PARTS ** max(j - 1, 0) for j in range(6)], axis=1) @ _TO_COEFFICIENTS
# The drift at the ends of an interval is taken from this far inside, as there may be a jump at the end.
INSIDE = 1e-3


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``.

    Not of those whose two stimuli leak at different rates (``conflict_stimflexrel1_leak2``): the decision variable is
    the sum of two accumulators, so that its future depends on more than its value.
    """
    return (
        model.simulator in _SIMULATORS
        and model.drift in (None, "constant", *_SMOOTH, *_JUMPING)
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
        jumps: whether the drift may jump.
    """

    bound: Callable[[np.ndarray], np.ndarray]
    drift: Callable[[np.ndarray], np.ndarray]
    leak: float
    start: float
    jumps: bool


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float, refine: int = 1) -> Table:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`.

    ``refine`` times as many steps and cells as usual make a reference that the usual densities can be judged by.
    """
    table, _ = densities_and_survival(model, theta, limit, shift, refine)
    return table


def densities_and_survival(
    model: Model, theta: np.ndarray, limit: np.ndarray, shift: float, refine: int = 1
) -> tuple[Table, np.ndarray]:
    """As `densities`, and (B,) the probability of no response until the last node, which is not made from them."""
    usual = JUMPING if model.drift in _JUMPING else CHANGING if model.drift in _SMOOTH else CONSTANT
    resolution = Resolution(refine * (usual.nodes - 1) + 1, refine * usual.cells)
    onset = theta[:, model.params.index("t")].astype(float)
    limits = limit - onset
    parts = [
        tabulate(process, decision_limit, resolution)
        for process, decision_limit in zip(processes(model, theta, shift), limits, strict=True)
    ]
    log_time, log_f, scale, left = (np.stack(part) for part in zip(*parts, strict=True))
    return make_table(onset, limits, log_time, log_f, scale, model.choices), left


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
                jumps=model.drift in _JUMPING,
            )
        )
    return out


def tabulate(
    process: Process, limit: float, resolution: Resolution
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Densities of decision time of one process until ``limit`` or until next to nothing is left.

    Returns:
        Log time nodes (N,); log-densities at the lower and upper bound (2, N); A (2,) of the onset exp(-A / t); the
        probability of no response until the last node.
    """
    at_zero = float(process.bound(np.zeros(1))[0])
    end = _closing_time(process, max(limit, 1e-9), CLOSED * at_zero)
    jumps = _jumps(process.drift, end) if process.jumps else np.empty(0)
    time = _nodes(process, at_zero, end, jumps, resolution.nodes)
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


def _jumps(drift: Callable[[np.ndarray], np.ndarray], end: float) -> np.ndarray:
    """Times in (0, end) at which the drift jumps."""
    low, width = np.linspace(0.0, end, SEARCH**2 * 4, endpoint=False), end / (SEARCH**2 * 4)
    for _ in range(ROUNDS):
        width /= SEARCH
        edges = low[:, None] + width * np.arange(SEARCH + 1)
        change = np.diff(drift(edges.ravel()).reshape(edges.shape))
        low = edges[:, :-1][np.abs(change) > SMALLEST_JUMP]
        if len(low) == 0:
            break
    return low + 0.5 * width


def _free_mean(process: Process, t: float, jumps: np.ndarray) -> float:
    """Mean of X(t) without bounds, for small t."""
    nodes, weights = LEGENDRE
    mean, edges = process.start * math.exp(-process.leak * t), [0.0, *jumps[jumps < t], t]
    for begin, end in pairwise(edges):
        r = begin + 0.5 * (end - begin) * (nodes + 1)
        mean += 0.5 * (end - begin) * float(weights @ (np.exp(process.leak * (r - t)) * process.drift(r)))
    return mean


def _nodes(process: Process, at_zero: float, end: float, jumps: np.ndarray, n_nodes: int) -> np.ndarray:
    """Time nodes (N,), closer together where something changes quickly; jumps are among them."""
    fine = _fine_grid(min((at_zero - abs(process.start)) ** 2 / START * 1e-2, 1e-3 * end), end)
    after = AFTER_JUMP * process.bound(jumps) ** 2 if len(jumps) else jumps
    if len(jumps):
        graded = jumps[:, None] + after[:, None] * (np.arange(17) / 16) ** 4
        fine = np.unique(np.concatenate([fine, graded[graded < end]]))
    drift = process.drift(fine).astype(float)
    return _place_nodes(fine, process.bound(fine), drift, process.leak, process.start, jumps, after, n_nodes)


def _closing_time(process: Process, limit: float, closed: float) -> float:
    """The time limit, or the time at which the bounds fall below ``closed`` if that is earlier."""
    low, high = 0.0, limit
    for _ in range(4):
        grid = np.linspace(low, high, 81)
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
def _place_nodes(fine, bound, drift, leak, start, jumps, after, n_nodes):
    """Spread nodes such that log t, log b, the clock, drift and pull change by similar amounts between
    them."""
    n = len(fine)
    begin, stop = n - 2, n - 1
    mean, decay, dead, last_pull = 0.0, 0.0, 0.0, 0.0
    position = np.zeros(n)
    for i in range(n):
        step = fine[i] - (fine[i - 1] if i > 0 else 0.0)
        width = max(bound[i], 1e-12)
        mean = mean * math.exp(-leak * step) + drift[i] * step
        distance = width - abs(start * math.exp(-leak * fine[i]) + mean)
        if i - 1 < begin and (distance <= 0.0 or distance * distance < 2 * START * fine[i]):
            begin = max(i - 1, 0)
        if i > 0:
            # How far drifts to come bend the paths that end here, and how fast that makes bridges die.
            bent = mean / _variance(fine[i], leak) - drift[i]
            dying = 0.5 * bent * bent * step
            dead += dying
            pull = leak * width * width + 0.5 * (width * width - bound[i - 1] * bound[i - 1]) / step
            change = width * abs(drift[i] - drift[i - 1])
            for j in range(len(jumps)):
                if fine[i - 1] <= jumps[j] <= fine[i]:
                    change = 0.0  # a jump takes no time
                for side in range(2):
                    since = min(max((fine[i - side] - jumps[j]) / after[j], 0.0), 1.0)
                    change += (1 - 2 * side) * GRADE * since**0.25
            position[i] = (
                position[i - 1]
                + math.log(fine[i] / fine[i - 1])
                + 2 * abs(math.log(width / max(bound[i - 1], 1e-12)))
                + step / (width * width) / (1 + 0.25 * max(decay, 0.0))
                + dying / (1 + 0.25 * dead)
                + change
                + (abs(pull - last_pull) if i > 1 else 0.0)
            )
            last_pull = pull
        decay += (math.pi * math.pi / 8 / (width * width) - max(leak, 0.0)) * step
        outside = max(abs(mean) - width, 0.0)
        if decay + dead + 0.5 * outside * outside / _variance(fine[i], leak) > END and i > begin + 1:
            stop = i
            break
    nodes = np.interp(
        np.linspace(position[begin], position[stop], n_nodes), position[begin : stop + 1], fine[begin : stop + 1]
    )
    for j in range(len(jumps)):
        if nodes[1] < jumps[j] < nodes[-1]:
            # One node just before the jump and one at it: there is a kink in between.
            at = max(np.searchsorted(nodes, jumps[j]) - 1, 2)
            nodes[at] = jumps[j]
            nodes[at - 1] = max(jumps[j] - 1e-4 * after[j], 0.5 * (nodes[at - 2] + jumps[j]))
    return nodes


@njit(cache=True)
def _coefficients(time, b, mu, leak, mean, integrate, differentiate):
    """What `bridge.solve` needs: 1 / b^2 and A at five points of each interval, (N - 1, 5) each; then b, and mean and
    variance of X without bounds, at the nodes."""
    n_steps, n = len(time) - 1, integrate.shape[0]
    rate, slope, offset = np.empty((3, n_steps, n))
    width, means, variances = np.empty((3, n_steps + 1))
    variance = _variance(time[0], leak)
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
            variance = _variance(time[i] + step * PARTS[j], leak)
            rate[i, j] = 1 / (at * at)
            slope[i, j] = at * (leak * at + grown / step - at / variance)
            offset[i, j] = at * (here / variance - mu[i, j + 1])
        mean = here
        width[i + 1], means[i + 1], variances[i + 1] = at, here, variance
    return rate, slope, offset, width, means, variances


@njit(cache=True)
def _variance(t, leak):
    """Variance of X(t) without bounds."""
    return -math.expm1(-2 * leak * t) / (2 * leak) if abs(leak) > 1e-9 else t
