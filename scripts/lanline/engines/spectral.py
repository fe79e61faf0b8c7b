"""First-passage densities of a Gauss-Markov process between two moving bounds: the numerical core.

The process dX = (mu(t) - g X) dt + dW starts at x0 and ends at the first of the bounds +-b(t). In y = X / b(t) and the
clock s = int dt / b^2 the bounds stand still at +-1 and the drift is m - k y with m = mu b and k = g b^2 + b b'. The
density q(y, s) is written as

    q = exp(m y - k y^2 / 2) phi,    d phi / ds = phi_yy / 2 - (alpha + beta y + gamma y^2) phi,    phi(+-1) = 0,

    alpha = (m^2 - k) / 2,    beta = dm/ds - m k,    gamma = (k^2 - dk/ds) / 2,

a heat equation with a quadratic potential. Potential and heat are applied in turn (Strang splitting), each exactly: the
potential at collocation points, the heat kernel on the coefficients of a sine series. For straight bounds and constant
drift beta = gamma = 0 and nothing is approximated. The flux through a bound, |q_y| / 2, is the density of s there.
"""

import math

import numpy as np
from numba import njit

# Numbers of sine modes that steps choose from. A start that needs more than the last is not resolved.
SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256)
# Modes with exp(-n^2 pi^2 s / 8) below about 1e-12 are left out.
MODES = 4.8
EXTRA_MODES = 12
# A flux that is this much smaller than the terms it is summed from is rounding error.
NOISE = 1e-11


def sine_tables() -> np.ndarray:
    """(len(SIZES), n, n) matrices sin(pi (i + 1) (j + 1) / (n + 1)), each in the corner of one of the largest size."""
    tables = np.zeros((len(SIZES), SIZES[-1], SIZES[-1]))
    for level, n in enumerate(SIZES):
        index = np.arange(1, n + 1)
        tables[level, :n, :n] = np.sin(np.pi * np.outer(index, index) / (n + 1))
    return tables


@njit(cache=True)
def _level(modes):
    for level in range(len(SIZES)):
        if SIZES[level] >= modes:
            return level
    return len(SIZES) - 1


@njit(cache=True)
def _transform(table, source, n, out):
    """out = table[:n, :n] @ source, summed in an order that the compiler can vectorise."""
    out[:n] = 0.0
    for i in range(n):
        value = source[i]
        for j in range(n):
            out[j] += value * table[i, j]


@njit(cache=True, nogil=True)
def solve(tables, clock, beta, gamma, log_factor, jump, m, k, mean, spread, log_f):
    """Log-density of s at the upper and the lower bound, at the end of each step, for one theta.

    Args:
        tables: from `sine_tables`.
        clock: (N,) s at the nodes.
        beta, gamma: (N - 1,) integrals over ds of the potential's slope and curvature over each step.
        log_factor: (N - 1,) minus the integral of alpha over each step.
        jump: (N - 1,) jump of m at the start of each step.
        m, k: (N,) at the nodes; where m jumps, its value before.
        mean, spread: of the Gaussian y at the first node.
        log_f: (2, N) the result, lower bound first; nodes where rounding hides the flux get -inf.
    """
    n_nodes = len(clock)
    largest = tables.shape[1]
    values, modes = np.empty(largest), np.empty(largest)
    level = _level(MODES / spread + EXTRA_MODES)
    n = SIZES[level]
    for i in range(n):
        y = -1 + 2 * (i + 1) / (n + 1)
        z = (y - mean) / spread
        values[i] = math.exp(-0.5 * z * z - m[0] * (y - mean) + 0.5 * k[0] * (y * y - mean * mean))
    log_scale = -math.log(spread * math.sqrt(2 * math.pi)) - m[0] * mean + 0.5 * k[0] * mean * mean
    log_f[:, 0] = -math.inf
    for step in range(n_nodes - 1):
        # Half of this step's potential (half of the last one's is in the values already), and the jump of the gauge.
        slope, curvature = 0.5 * beta[step] + jump[step], 0.5 * gamma[step]
        for i in range(n):
            y = -1 + 2 * (i + 1) / (n + 1)
            values[i] *= math.exp(-y * (slope + curvature * y))
        _transform(tables[level], values, n, modes)
        elapsed = clock[step + 1] - clock[step]
        rate = -elapsed * math.pi * math.pi / 8
        lower, upper, total = 0.0, 0.0, 0.0
        sign = 1.0
        for j in range(n):
            modes[j] *= math.exp(rate * (j + 1) * (j + 1)) * 2 / (n + 1)
            term = modes[j] * (j + 1)
            lower += term
            upper += sign * term
            total += abs(term)
            sign = -sign
        log_scale += log_factor[step]
        half_slope, half_curvature = 0.5 * beta[step], 0.5 * gamma[step]
        edge = log_scale + math.log(math.pi / 4) - half_curvature - 0.5 * k[step + 1]
        log_f[0, step + 1] = edge + math.log(lower) + half_slope - m[step + 1] if lower > NOISE * total else -math.inf
        log_f[1, step + 1] = edge + math.log(upper) - half_slope + m[step + 1] if upper > NOISE * total else -math.inf
        # On to the grid of the next step, scaled to stay in range.
        level = min(level, _level(MODES / math.sqrt(clock[step + 1]) + EXTRA_MODES))
        n = SIZES[level]
        _transform(tables[level], modes, n, values)
        largest_value = 0.0
        for i in range(n):
            y = -1 + 2 * (i + 1) / (n + 1)
            values[i] *= math.exp(-y * (half_slope + half_curvature * y))
            largest_value = max(largest_value, abs(values[i]))
        log_scale += math.log(largest_value)
        for i in range(n):
            values[i] /= largest_value
