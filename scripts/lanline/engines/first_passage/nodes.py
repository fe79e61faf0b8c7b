"""Time nodes that lie close where something changes quickly, with the jumps of the drift among them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lanline.engines.compiled import njit
from lanline.engines.first_passage.process import Process, variance_at

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


def jumps_of(drift: Callable[[np.ndarray], np.ndarray], end: float) -> np.ndarray:
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


def time_nodes(process: Process, at_zero: float, end: float, jumps: np.ndarray, n_nodes: int) -> np.ndarray:
    """Time nodes (N,), closer together where something changes quickly; jumps are among them."""
    fine = _fine_grid(min((at_zero - abs(process.start)) ** 2 / START * 1e-2, 1e-3 * end), end)
    after = AFTER_JUMP * process.bound(jumps) ** 2 if len(jumps) else jumps
    if len(jumps):
        graded = jumps[:, None] + after[:, None] * (np.arange(17) / 16) ** 4
        fine = np.unique(np.concatenate([fine, graded[graded < end]]))
    drift = process.drift(fine).astype(float)
    return _place_nodes(fine, process.bound(fine), drift, process.leak, process.start, jumps, after, n_nodes)


def closing_time(process: Process, limit: float, closed: float) -> float:
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
            bent = mean / variance_at(fine[i], leak) - drift[i]
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
        if decay + dead + 0.5 * outside * outside / variance_at(fine[i], leak) > END and i > begin + 1:
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
