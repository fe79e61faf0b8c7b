"""Densities of a diffusion without drift between two moving bounds, from any time on.

Everything is a function of the clock s = int_0^t 1 / b^2, on which a process between bounds +-b(t) that move linearly
is one between fixed bounds (`lanline.engines.closed_form.ddm`). Other bounds are solved (`lanline.engines.
first_passage.tabulation`) for paths that start in the middle between them, at `STARTS` times; in between the logarithm
of what the curvature changes is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from scipy.interpolate import CubicSpline

from lanline.engines.closed_form.series import log_density
from lanline.engines.compiled import njit
from lanline.engines.first_passage.nodes import CLOSED, closing_time
from lanline.engines.first_passage.process import Process
from lanline.engines.first_passage.tabulation import Resolution, tabulate
from lanline.engines.tables import Table, make_table

# Exponents of densities that do not matter any more.
DEEP = 45.0
# Linear bounds are followed until they are this part of their height.
NEARLY_CLOSED = 1e-3
# Of bounds that bend: starts and clocks since a start, and the solver's nodes and cells from the time 0, and later.
STARTS, CLOCKS = 36, 40
AT_ZERO, LATER = Resolution(81, 64), Resolution(41, 40)
# The clock from a start on at which the table of the curvature's effect begins and ends, and at the last start.
SHORTEST, LONGEST, LAST_START = 0.02, 30.0, 12.0
N_FINE = 2000
MEMORY = 0.05  # how long a path remembers the slope of the bounds, on its clock
# How much more than log clock a change of log b counts in placing the starts.
TURNS = 2.0

Bound = Callable[[np.ndarray], np.ndarray]


class Moments(NamedTuple):
    """What the clock and the bounds are at some moments, arrays of one shape; ``place``: see `_spread`."""

    clock: np.ndarray
    time: np.ndarray
    height: np.ndarray
    slope: np.ndarray
    place: np.ndarray


class Kernel(Protocol):
    """Diffusions without drift between the bounds +-b(t).

    Attributes:
        last: the clock at the time limit, or where the bounds have all but closed.
        height: b at the time 0.
    """

    @property
    def last(self) -> float: ...

    @property
    def height(self) -> float: ...

    def at(self, clock: np.ndarray) -> Moments:
        """The moments at which the clock shows this."""

    def log_flux(self, begin: Moments | None, end: Moments, y0: np.ndarray | float) -> np.ndarray:
        """(2, ...) log-densities of the time ``end`` at the lower and upper bound, from y0 b at ``begin`` (None: 0)."""


def straight(begin: Moments, end: Moments, y0: np.ndarray | float) -> np.ndarray:
    """What `Kernel.log_flux` is if the bounds move linearly."""
    elapsed = np.maximum(end.clock - begin.clock, 1e-12)
    y0 = y0 + np.zeros_like(elapsed)
    factors = -1.5 * np.log(end.height) - 0.5 * np.log(begin.height)
    return _fixed(elapsed, y0) + factors - 0.5 * end.slope * (end.height - begin.height * y0 * y0)


@njit(cache=True, nogil=True)
def _fixed(s, y0):
    """(2, ...) log-densities of leaving (-1, 1) at s through either end, from y0."""
    out = np.empty((2, *s.shape))
    for i in range(s.size):
        for side in range(2):
            if side == 0 or y0.flat[i] != 0.0:
                value = log_density(s.flat[i], 1.0 + (1 - 2 * side) * y0.flat[i])
            out[side].flat[i] = value
    return out


@dataclass(frozen=True)
class Linear:
    """Bounds +-(height - fall t) until ``limit``, seconds."""

    height: float
    fall: float
    limit: float

    @property
    def last(self) -> float:
        end = self.limit
        if self.fall > 0:
            end = min(end, self.height / self.fall * (1 - NEARLY_CLOSED))
        return end / (self.height * (self.height - self.fall * end))

    def at(self, clock: np.ndarray) -> Moments:
        height = self.height / (1 + self.fall * self.height * clock)
        return Moments(clock, clock * self.height * height, height, np.full_like(clock, -self.fall), clock)

    def log_flux(self, begin: Moments | None, end: Moments, y0: np.ndarray | float) -> np.ndarray:
        return straight(begin or self.at(np.zeros(1)), end, y0)


@dataclass(frozen=True)
class Curved:
    """Any bounds, for starts in the middle between them.

    Attributes:
        grid: moments, close together.
        from_zero: the densities from the time 0.
        correction: (STARTS, CLOCKS) log-density minus `straight`, by start and by the clock since then.
    """

    grid: Moments
    from_zero: Table
    correction: np.ndarray

    @staticmethod
    def make(bound: Bound, limit: float, later: bool, refine: int) -> Curved:
        """Densities until ``limit``, seconds; ``later`` says whether others than those from the time 0 are wanted.

        ``refine`` as in `lanline.engines.first_passage.two_stage.densities`.
        """
        grid = _grid(bound, limit, refine)
        at_zero, at_others = (_finer(resolution, refine) for resolution in (AT_ZERO, LATER))
        end = grid.time[-1]
        first = _solved(bound, np.zeros(1), end, at_zero)
        out = Curved(grid, first, np.empty((0, 0)))
        if not later:
            return out
        begin = np.interp(np.linspace(0, 1, refine * STARTS), *_inner(grid.place, grid.time))
        # Quicker than the function, of which there may be a hundred calls, and smooth after the time 0.
        spline = CubicSpline(np.log(grid.time[1:]), grid.height[1:])
        others = _solved(lambda t: spline(np.log(t)), begin, end, at_others)
        starts = out.at(np.interp(begin, grid.time, grid.clock)[:, None])
        ends = out.at(starts.clock + np.geomspace(SHORTEST, LONGEST, refine * CLOCKS))
        elapsed = np.maximum(ends.time - starts.time, 1e-12)
        log_flux = others.log_density(elapsed, np.ones_like(elapsed))
        return replace(out, correction=log_flux - straight(starts, ends, 0.0)[1])

    @property
    def last(self) -> float:
        return float(self.grid.clock[-1])

    @property
    def height(self) -> float:
        return float(self.grid.height[0])

    def at(self, clock: np.ndarray) -> Moments:
        flat = np.minimum(np.ravel(clock), self.last)
        found = _look_up(flat, *self.grid)
        return Moments(*(part.reshape(np.shape(clock)) for part in (flat, *found)))

    def log_flux(self, begin: Moments | None, end: Moments, y0: np.ndarray | float) -> np.ndarray:
        if begin is None:
            flat = np.ravel(end.time)[None]
            out = self.from_zero.log_density(flat, np.ones_like(flat)).reshape(np.shape(end.time))
            return np.broadcast_to(out, (2, *out.shape))
        out = straight(begin, end, 0.0)
        row, column = np.array(self.correction.shape) - 1
        since = np.log(np.maximum(end.clock - begin.clock, SHORTEST) / SHORTEST) / math.log(LONGEST / SHORTEST)
        value = _cubic(self.correction, row * begin.place.ravel(), column * since.ravel())
        return out + value.reshape(begin.place.shape)


def _grid(bound: Bound, limit: float, refine: int) -> Moments:
    at_zero = float(bound(np.zeros(1))[0])
    end = closing_time(_from(bound, 0.0), limit, CLOSED * at_zero)
    time = np.geomspace(min(1e-4 * at_zero**2, 1e-3 * end), end, refine * N_FINE)
    time = np.unique(np.concatenate([[0.0], time, end - time[time < 0.5 * end]]))
    height = bound(time)
    rate = height**-2.0
    clock = np.append(0.0, np.cumsum(0.5 * np.diff(time) * (rate[1:] + rate[:-1])))
    # What a path meets of the slope: that of the last bit on its clock.
    since = np.maximum(clock - MEMORY, 0.0)
    before = np.interp(since, clock, np.log(height))
    slope = (np.log(height) - before) / np.maximum(clock - since, 1e-12) / height
    return Moments(clock, time, height, slope, _spread(clock, height))


def _spread(clock: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Places from 0 to 1, between which log clock and log b change by similar amounts: starts lie there at equal
    distances. Very early and late moments have the first and the last place."""
    last = max(int(np.searchsorted(clock, min(LAST_START, 0.9 * clock[-1]))), 2)
    first = min(int(np.searchsorted(clock, 1 / (2 * DEEP))), last - 1)
    inside = slice(first, last + 1)
    change = np.diff(np.log(clock[inside])) + TURNS * np.abs(np.diff(np.log(height[inside])))
    position = np.append(0.0, np.cumsum(change))
    return np.pad(position / position[-1], (first, len(clock) - 1 - last), mode="edge")


def _inner(place: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both from where places begin to rise until where they end to."""
    rising = np.flatnonzero(np.diff(place) > 0)
    inside = slice(rising[0], rising[-1] + 2)
    return place[inside], time[inside]


def _finer(resolution: Resolution, refine: int) -> Resolution:
    return Resolution(refine * (resolution.nodes - 1) + 1, refine * resolution.cells)


def _solved(bound: Bound, begin: np.ndarray, end: float, resolution: Resolution) -> Table:
    """Densities of the time since each start in the middle."""
    parts = [tabulate(_from(bound, each), end - each, resolution) for each in begin]
    log_time, log_f, scale, _ = (np.stack(part) for part in zip(*parts, strict=True))
    return make_table(np.zeros(len(begin)), np.full(len(begin), np.inf), log_time, log_f, scale, (-1, 1))


def _from(bound: Bound, begin: float) -> Process:
    return Process(lambda t: bound(begin + t), lambda t: np.zeros_like(t), leak=0.0, start=0.0, jumps=False)


@njit(cache=True, nogil=True)
def _look_up(clock, known, time, height, slope, place):
    """(4, n) times, heights, slopes and places, linear between those that are known."""
    out = np.empty((4, len(clock)))
    for i in range(len(clock)):
        j = min(max(np.searchsorted(known, clock[i]) - 1, 0), len(known) - 2)
        share = (clock[i] - known[j]) / (known[j + 1] - known[j])
        out[0, i] = time[j] + share * (time[j + 1] - time[j])
        out[1, i] = height[j] + share * (height[j + 1] - height[j])
        out[2, i] = slope[j] + share * (slope[j + 1] - slope[j])
        out[3, i] = place[j] + share * (place[j + 1] - place[j])
    return out


@njit(cache=True, nogil=True)
def _cubic(table, row, column):
    """Values at fractional indices, by cubics through the entries around them; those at the ends beyond these."""
    out = np.zeros(len(row))
    weights, first = np.empty((2, 4)), np.empty(2, np.int64)
    for i in range(len(row)):
        for axis in range(2):
            size = table.shape[axis]
            at = min(max(row[i] if axis == 0 else column[i], 0.0), size - 1.0)
            first[axis] = min(max(int(at) - 1, 0), size - 4)
            x = at - first[axis]
            weights[axis, 0] = -(x - 1) * (x - 2) * (x - 3) / 6
            weights[axis, 1] = x * (x - 2) * (x - 3) / 2
            weights[axis, 2] = -x * (x - 1) * (x - 3) / 2
            weights[axis, 3] = x * (x - 1) * (x - 2) / 6
        for j in range(4):
            for k in range(4):
                out[i] += weights[0, j] * weights[1, k] * table[first[0] + j, first[1] + k]
    return out
