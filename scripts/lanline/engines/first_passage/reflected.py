"""First-passage densities of a diffusion above a reflecting floor to a bound that moves linearly: the numerical core.

The process dX = v dt + dW starts at x0, is reflected at 0 and ends at the bound b(t) = a - k t. With y = x / b, y0 =
x0 / a and the clock s = t / (a b), which runs like dt / b^2, its density is (cf. `lanline.engines.closed_form.ddm`)

    p(x, t) = u(y, s) (a b)^(-1/2) exp(v (x - x0) - v^2 t / 2 + k (b y^2 - a y0^2) / 2),

where u is a driftless process on (0, 1) that ends at 1, and that the drift has left with a floor that absorbs in part:

    u_s = u_yy / 2,    u_y = h u at y = 0 with h = v b,    u = 0 at y = 1,    u(y, 0) = delta(y - y0).

Let N(y, s) be the density at 0 of a path from y, and F(y, s) the flux through 1, for a floor that only reflects: both
are half of a process between -1 and 1, and series. Then the density g at the floor and the flux at 1 are

    g(s) = N(y0, s) - 1/2 int_0^s h g(r) N(0, s - r) dr,    flux(s) = F(y0, s) - 1/2 int_0^s h g(r) F(0, s - r) dr,

a Volterra equation of the second kind (Linz 1985, chapter 7), and an integral. h g is a polynomial on each of a
sequence of panels, the same for every process. So the integrals are fixed matrices, made once by Gauss-Legendre rules
after the substitution r = s - x^2, which takes the singularity of N away, and only sums are left for each process.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lanline.engines.closed_form.series import log_density
from lanline.engines.compiled import njit

POINTS = 8  # of a panel
# The clock's panels: doubling, then of the length 1, up to where exp(-20) of the slowest process is left.
FIRST, LAST = 2.0**-20, 16.0
EDGES = np.concatenate([FIRST * 2.0 ** np.arange(21), np.arange(2.0, LAST + 1)])
_NODES, _ = np.polynomial.legendre.leggauss(POINTS)
UNIT_NODES = 0.5 * (_NODES + 1)
CLOCK = (EDGES[:-1, None] + np.diff(EDGES)[:, None] * UNIT_NODES).ravel()
# Coefficients of the polynomials that are 1 at one of the nodes of (0, 1) and 0 at the others.
LAGRANGE = np.linalg.inv(np.vander(UNIT_NODES, increasing=True))
INNER = np.polynomial.legendre.leggauss(32)


class Panels(NamedTuple):
    """Integrals over h g, at the N nodes of `CLOCK`.

    Attributes:
        floor: (N, N) weights of h g at the nodes in the equation for g.
        flux: (N, N) the same in the flux at 1.
        floor_first, flux_first: (N,) weights of the integral of h g before the first panel.
    """

    floor: np.ndarray
    flux: np.ndarray
    floor_first: np.ndarray
    flux_first: np.ndarray


@cache
def panels() -> Panels:
    """The matrices, made when first asked for (0.1 s)."""
    nodes, weights = INNER
    floor, flux = np.zeros((2, len(CLOCK), len(CLOCK)))
    for panel, (low, high) in enumerate(pairwise(EDGES)):
        first = panel * POINTS
        to = CLOCK[first:, None]
        near, far = np.sqrt(np.maximum(to - high, 0.0)), np.sqrt(to - low)
        x = near + 0.5 * (far - near) * (nodes + 1)
        weight = 0.5 * (far - near) * weights * 2 * x
        where = ((to - x * x) - low) / (high - low)
        polynomials = np.power(where[..., None], np.arange(POINTS)) @ LAGRANGE
        columns = slice(first, first + POINTS)
        floor[first:, columns] = np.einsum("ij,ijk->ik", weight * _at_floor(x * x, 0.0), polynomials)
        flux[first:, columns] = np.einsum("ij,ijk->ik", weight * _at_bound(x * x, 0.0), polynomials)
    # What happens that early happens at the floor with a density like r^(-1/2), r = first sin(u)^2.
    angle = 0.25 * math.pi * (nodes + 1)
    since = CLOCK[:, None] - FIRST * np.sin(angle) ** 2
    share = 0.25 * math.pi * weights * np.cos(angle)
    return Panels(floor, flux, _at_floor(since, 0.0) @ share, _at_bound(since, 0.0) @ share)


@njit(cache=True)
def _floor_density(y: float, s: float) -> float:
    """N(y, s), as images or as eigenfunctions."""
    total = 0.0
    if s < 0.6:
        for k in range(-3, 4):
            total += (1 - 2 * (k % 2)) * math.exp(-((y + 2 * k) ** 2) / (2 * s))
        return 2 * total / math.sqrt(2 * math.pi * s)
    for n in range(5):
        rate = (n + 0.5) * math.pi
        total += 2 * math.cos(rate * y) * math.exp(-0.5 * rate * rate * s)
    return total


@njit(cache=True)
def _log_flux(y: float, s: float) -> float:
    """Log of F(y, s): either way out of (-1, 1)."""
    near, far = log_density(s, 1 - y), log_density(s, 1 + y)
    return near + math.log1p(math.exp(far - near)) if near > -math.inf else near


@njit(cache=True)
def _at_floor(s, y):
    out = np.empty(s.shape)
    for i in range(s.size):
        out.flat[i] = _floor_density(y, s.flat[i])
    return out


@njit(cache=True)
def _at_bound(s, y):
    out = np.empty(s.shape)
    for i in range(s.size):
        out.flat[i] = math.exp(_log_flux(y, s.flat[i]))
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def solve(y0, pull, nodes, edges, floor, flux, floor_first, flux_first):
    """Log of the flux through the bound, plus d^2 / (2 s) with the distance d = 1 - y0 from the start.

    Args:
        y0: start, in (0, 1).
        pull: (n,) h at the nodes in the panels to be used, a multiple of `POINTS`.
        nodes, edges: `CLOCK`, `EDGES`; floor, ...: of `Panels`.

    Returns:
        (n,), at the nodes.
    """
    n = len(pull)
    out, lost, matrix = np.empty(n), np.empty(n), np.empty((POINTS, POINTS))
    # int N dr before the first panel.
    first = edges[0]
    early = 2 * math.sqrt(2 * first / math.pi) * math.exp(-y0 * y0 / (2 * first))
    early = pull[0] * (early - 2 * y0 * math.erfc(y0 / math.sqrt(2 * first)))
    for begin in range(0, n, POINTS):
        for i in range(POINTS):
            at = begin + i
            total = early * floor_first[at]
            for j in range(begin):
                total += floor[at, j] * lost[j]
            for j in range(POINTS):
                matrix[i, j] = 0.5 * pull[at] * floor[at, begin + j]
            matrix[i, i] += 1.0
            lost[at] = pull[at] * (_floor_density(y0, nodes[at]) - 0.5 * total)
        _eliminate(matrix, lost[begin : begin + POINTS])
    for at in range(n):
        total = early * flux_first[at]
        for j in range((at // POINTS + 1) * POINTS):
            total += flux[at, j] * lost[j]
        log_free = _log_flux(y0, nodes[at])
        log_left = math.log1p(-min(0.5 * total * math.exp(-log_free), 1 - 1e-12)) if total != 0.0 else 0.0
        out[at] = log_free + log_left + (1 - y0) ** 2 / (2 * nodes[at])
    return out


@njit(cache=True, error_model="numpy")
def _eliminate(matrix, value):
    """Solve the small system in place; the diagonal is large enough to go without pivots."""
    n = len(value)
    for i in range(n):
        for k in range(i + 1, n):
            factor = matrix[k, i] / matrix[i, i]
            for j in range(i + 1, n):
                matrix[k, j] -= factor * matrix[i, j]
            value[k] -= factor * value[i]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            value[i] -= matrix[i, j] * value[j]
        value[i] /= matrix[i, i]
