"""Densities tabulated over time: integration, sampling by inverse CDF, and evaluation between the nodes.

A table holds, for each theta and choice, log f at time nodes (decision time, without the non-decision time).
Between two nodes log f + A / t is a cubic in log t. First-passage densities set on like exp(-A / t), so what
is left to interpolate is smooth from the onset to the exponential tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanline.engines.compiled import njit

MIN_MASS = 1e-12  # a theta that responds less often before the limit has no samples
# Three-point Gauss-Legendre rule on (0, 1): node and weight.
RULE = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18))


@dataclass(frozen=True)
class Table:
    """Log-densities of B thetas and C choices at N time nodes, with what sampling and evaluation need.

    Attributes:
        onset: (B,) non-decision time, seconds.
        limit: (B,) largest decision time, seconds; the density is not used from there on.
        log_time: (B, N) logarithm of increasing decision times in seconds; the last is at or before
            ``limit``.
        scale: (B, C) A of the onset exp(-A / t), seconds.
        smooth: (B, C, N) log-density of (decision time, choice) at the nodes, plus A / t.
        slope: (B, C, N) its derivative by log time at the nodes.
        cumulative: (B, C * (N - 1) + 1) probability summed over the cells of choice 0, then 1, and so on.
        choices: (C,) the values of the choices.
    """

    onset: np.ndarray
    limit: np.ndarray
    log_time: np.ndarray
    scale: np.ndarray
    smooth: np.ndarray
    slope: np.ndarray
    cumulative: np.ndarray
    choices: np.ndarray

    @property
    def cells(self) -> tuple[np.ndarray, ...]:
        """What an integral over decision times takes: nodes, onsets' scale, values and slopes."""
        return self.log_time, self.scale, self.smooth, self.slope

    def choice_probability(self) -> np.ndarray:
        """(B, C) probability of each choice before the time limit."""
        cells = self.log_time.shape[1] - 1
        return np.diff(self.cumulative[:, ::cells], axis=1)

    def omission_probability(self) -> np.ndarray:
        """(B,) probability that no response comes before the time limit."""
        return np.clip(1.0 - self.cumulative[:, -1], 0.0, 1.0)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(B, n) response times and choices, conditional on a response before the time limit, or nan."""
        uniform = rng.random((len(self.log_time), n))
        return _sample(uniform, self.onset, self.log_time, self.scale, self.smooth, self.cumulative, self.choices)

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """(B, n) log-density at response times and choices; -inf outside (onset, onset + limit), and at nan."""
        index = np.searchsorted(self.choices, choice)
        return _interpolate(rt, index, self.onset, self.limit, *self.cells)


def make_table(
    onset: np.ndarray,
    limit: np.ndarray,
    log_time: np.ndarray,
    log_f: np.ndarray,
    scale: np.ndarray,
    choices: tuple[int, ...],
) -> Table:
    """A table from log-densities ``log_f`` (B, C, N) at nodes; see `Table` for the other arguments."""
    # The lower limit keeps slopes finite where there is no density at all.
    smooth = np.maximum(log_f + scale[:, :, None] * np.exp(-log_time)[:, None, :], -1e4)
    slope = slopes(log_time, smooth)
    mass = cell_masses(log_time, scale, smooth, slope)
    cumulative = np.cumsum(mass.reshape(len(mass), -1), axis=1)
    cumulative = np.concatenate([np.zeros((len(mass), 1)), cumulative], axis=1)
    return Table(onset, limit, log_time, scale, smooth, slope, cumulative, np.asarray(choices))


@njit(cache=True, nogil=True)
def slopes(log_time, smooth):
    """Parabola slopes, limited to three times the smaller secant so that no cell overshoots."""
    n_theta, n_choice, n = smooth.shape
    slope = np.empty_like(smooth)
    for b in range(n_theta):
        for c in range(n_choice):
            left_width = log_time[b, 1] - log_time[b, 0]
            left = (smooth[b, c, 1] - smooth[b, c, 0]) / left_width
            slope[b, c, 0] = left
            for j in range(1, n - 1):
                width = log_time[b, j + 1] - log_time[b, j]
                right = (smooth[b, c, j + 1] - smooth[b, c, j]) / width
                value = (left * width + right * left_width) / (width + left_width)
                if left * right > 0.0:
                    bound = 3.0 * min(abs(left), abs(right))
                else:
                    # Near a maximum the parabola is right, but not at a kink with cells of very different widths.
                    bound = 3.0 * max(abs(left) * left_width, abs(right) * width) / max(left_width, width)
                value = min(max(value, -bound), bound)
                slope[b, c, j] = value
                left, left_width = right, width
            slope[b, c, n - 1] = left
    return slope


@njit(cache=True)
def hermite(u, width, f0, f1, s0, s1):
    """Cubic through (0, f0) and (width, f1) with end slopes s0 and s1, at the fraction u of the cell."""
    rise = f1 - f0
    c = width * s0
    d = width * s1
    return f0 + u * (c + u * (3 * rise - 2 * c - d + u * (c + d - 2 * rise)))


@njit(cache=True, nogil=True)
def cell_masses(log_time, scale, smooth, slope):
    """(B, C, N - 1) probability of each cell; arguments as in `Table`."""
    n_theta, n_choice, n = smooth.shape
    mass = np.zeros((n_theta, n_choice, n - 1))
    for b in range(n_theta):
        for j in range(n - 1):
            u = log_time[b, j]
            width = log_time[b, j + 1] - u
            for node, weight in RULE:
                t = math.exp(u + node * width)
                for c in range(n_choice):
                    f0, f1, s0, s1 = smooth[b, c, j], smooth[b, c, j + 1], slope[b, c, j], slope[b, c, j + 1]
                    value = hermite(node, width, f0, f1, s0, s1) - scale[b, c] / t
                    if value > -50.0:
                        mass[b, c, j] += weight * width * t * math.exp(value)
    return mass


@njit(cache=True, nogil=True)
def _sample(uniform, onset, log_time, scale, smooth, cumulative, choices):
    n_theta, n_sample = uniform.shape
    n = log_time.shape[1]
    rt = np.empty((n_theta, n_sample))
    choice = np.empty((n_theta, n_sample))
    for b in range(n_theta):
        total = cumulative[b, -1]
        if total < MIN_MASS:
            rt[b], choice[b] = math.nan, math.nan
            continue
        for i in range(n_sample):
            target = uniform[b, i] * total
            cell = min(np.searchsorted(cumulative[b], target, side="right") - 1, cumulative.shape[1] - 2)
            c, j = cell // (n - 1), cell % (n - 1)
            fraction = (target - cumulative[b, cell]) / (cumulative[b, cell + 1] - cumulative[b, cell])
            # Within the cell the density of log t is taken as linear; g0 and g1 are its ends.
            u0, u1 = log_time[b, j], log_time[b, j + 1]
            g0 = math.exp(smooth[b, c, j] + u0 - scale[b, c] * math.exp(-u0))
            g1 = math.exp(smooth[b, c, j + 1] + u1 - scale[b, c] * math.exp(-u1))
            position = fraction * (g0 + g1) / (g0 + math.sqrt(g0 * g0 + fraction * (g1 * g1 - g0 * g0)))
            rt[b, i] = onset[b] + math.exp(u0 + position * (u1 - u0))
            choice[b, i] = choices[c]
    return rt, choice


@njit(cache=True, nogil=True)
def _interpolate(rt, index, onset, limit, log_time, scale, smooth, slope):
    n_theta, n_row = rt.shape
    n = log_time.shape[1]
    out = np.empty((n_theta, n_row))
    for b in range(n_theta):
        for i in range(n_row):
            t = rt[b, i] - onset[b]
            c = index[b, i]
            if not 0.0 < t < limit[b]:  # nan, which has no choice to look up either, is outside
                out[b, i] = -math.inf
                continue
            u = math.log(t)
            j = np.searchsorted(log_time[b], u) - 1
            if j < 0:
                # Before the first node the leading terms of a first-passage density, t^(-3/2) exp(-A / t).
                value = smooth[b, c, 0] - 1.5 * (u - log_time[b, 0])
            elif j >= n - 1:
                # After the last node an exponential tail, by the slope at the node.
                last = math.exp(log_time[b, n - 1])
                value = smooth[b, c, n - 1] + min(slope[b, c, n - 1], 0.0) * (t / last - 1)
            else:
                f0, f1, s0, s1 = smooth[b, c, j], smooth[b, c, j + 1], slope[b, c, j], slope[b, c, j + 1]
                width = log_time[b, j + 1] - log_time[b, j]
                value = hermite((u - log_time[b, j]) / width, width, f0, f1, s0, s1)
            out[b, i] = value - scale[b, c] / t
    return out
