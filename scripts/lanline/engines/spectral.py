"""First-passage densities of a Gauss-Markov process between two moving bounds: the numerical core.

The process dX = (mu(t) - g X) dt + dW starts at x0 and ends at the first of the bounds +-b(t). In y = X /
b(t) and the clock s = int dt / b^2 the bounds stand still at +-1 and the drift is m - k y with m = mu b and k
= g b^2 + b b'. The density q(y, s) is written as

    q = exp(m y - k y^2 / 2) phi,    d phi / ds = phi_yy / 2 - (alpha + beta y + gamma y^2) phi,    phi(+-1) =
    0,

    alpha = (m^2 - k) / 2,    beta = dm/ds - m k,    gamma = (k^2 - dk/ds) / 2,

a heat equation with a quadratic potential. Potential and heat are applied in turn (Strang splitting), each
exactly: the potential at collocation points, the heat kernel on the coefficients of a sine series. For
straight bounds and constant drift beta = gamma = 0 and nothing is approximated. The flux through a bound,
|q_y| / 2, is the density of s there.
"""

import math

import numpy as np
from numba import njit

from lanline.engines.series import log_density

# Numbers of sine modes that steps choose from. A start that needs more than the last is not resolved.
SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256)
# Modes with exp(-n^2 pi^2 s / 8) below about 1e-12 are left out.
MODES = 4.8
EXTRA_MODES = 24
EARLY_MODES = 36  # more of them while a bound may be far off, see ECHO
# A flux that is this much smaller than the terms it is summed from is rounding error, or, in proportion to
# the potential, an echo from the other bound (sine coefficients that are cut off). A density is known from
# the first of so many nodes on at which it is larger.
ROUNDING = 1e-12
ECHO = 30.0
RUN = 4
# The splitting's error falls with the step to the power 3/2, because the potential acts on the thin layer at
# the bounds that each step of heat renews; halving the step leaves 1 / (1 + GAIN) of it.
GAIN = 2**1.5 - 1


def sine_tables() -> np.ndarray:
    """Sine matrices of all `SIZES`, split into functions that are even and odd about the middle.

    Entry [level, parity, i, j] is sin(pi (i + 1) (2 j + parity + 1) / (n + 1)) for a point i in the left half
    and the mode 2 j + parity; entry [level, 2 + parity, j, i] is the same, for the way back.
    """
    half = SIZES[-1] // 2
    tables = np.zeros((len(SIZES), 4, half, half))
    for level, n in enumerate(SIZES):
        point, mode = np.arange(1, n // 2 + 1), np.arange(n // 2)
        for parity in range(2):
            sines = np.sin(np.pi * np.outer(point, 2 * mode + parity + 1) / (n + 1))
            tables[level, parity, : n // 2, : n // 2] = sines
            tables[level, 2 + parity, : n // 2, : n // 2] = sines.T
    return tables


@njit(cache=True)
def _level(clock):
    modes = MODES / math.sqrt(clock) + EXTRA_MODES + EARLY_MODES * min(1.0, 0.4 / clock)
    for level in range(len(SIZES)):
        if SIZES[level] >= modes:
            return level
    return len(SIZES) - 1


@njit(cache=True)
def _to_modes(table, values, n, modes):
    """modes[j] = sum_i values[i] sin(pi (i + 1) (j + 1) / (n + 1))."""
    half = n // 2
    even, odd = np.zeros(half), np.zeros(half)
    for i in range(half):
        total, difference = values[i] + values[n - 1 - i], values[i] - values[n - 1 - i]
        for j in range(half):
            even[j] += total * table[0, i, j]
        for j in range(half):
            odd[j] += difference * table[1, i, j]
    for j in range(half):
        modes[2 * j] = even[j]
        modes[2 * j + 1] = odd[j]


@njit(cache=True)
def _to_values(table, modes, n, values):
    """values[i] = sum_j modes[j] sin(pi (i + 1) (j + 1) / (n + 1))."""
    half = n // 2
    even, odd = np.zeros(half), np.zeros(half)
    for j in range(half):
        first, second = modes[2 * j], modes[2 * j + 1]
        for i in range(half):
            even[i] += first * table[2, j, i]
        for i in range(half):
            odd[i] += second * table[3, j, i]
    for i in range(half):
        values[i] = even[i] + odd[i]
        values[n - 1 - i] = even[i] - odd[i]


@njit(cache=True)
def _multiply(table, n, slope, curvature, modes, values):
    """Multiply the function of a sine series by exp(-slope y - curvature y^2); ``modes`` in and out.

    The factor bends the function at the bounds, and sine coefficients of what bends there fall off slowly. So
    a cubic that bends alike is taken off before the transform, and its exact coefficients are added after it.
    """
    left, right = 0.0, 0.0  # derivatives at the bounds
    sign = -1.0
    for j in range(n):
        term = 0.5 * math.pi * modes[j] * (j + 1)
        left += term
        right += sign * term
        sign = -sign
    bend_left = -2 * (slope - 2 * curvature) * left * math.exp(slope - curvature)
    bend_right = -2 * (slope + 2 * curvature) * right * math.exp(-slope - curvature)
    _to_values(table, modes, n, values)
    # exp of a quadratic on a uniform grid, by two products a point
    space = 2 / (n + 1)
    factor = math.exp(slope - curvature)
    ratio = math.exp(-slope * space + curvature * (2 - space) * space)
    change = math.exp(-2 * curvature * space * space)
    for i in range(n):
        u = (i + 1) / (n + 1)
        factor *= ratio
        ratio *= change
        cubic = (2 / 3) * (bend_right * (u * u - 1) * u + bend_left * ((1 - u) * (1 - u) - 1) * (1 - u))
        values[i] = (values[i] * factor - cubic) * space
    _to_modes(table, values, n, modes)
    sign = 1.0
    for j in range(n):
        modes[j] -= 8 / (math.pi * (j + 1.0)) ** 3 * (bend_left + sign * bend_right)
        sign = -sign


@njit(cache=True, nogil=True)
def solve(tables, clock, beta, gamma, log_factor, m, k, mean, spread):
    """Log-density of s at both bounds, at the end of each step, for one theta.

    The steps are taken twice, alone and in pairs, and the two results extrapolated (Richardson).

    Args:
        tables: from `sine_tables`.
        clock: (N,) s at the nodes, N odd.
        beta, gamma: (N - 1,) integrals over ds of the potential's slope and curvature over each step.
        log_factor: (N - 1,) minus the integral of alpha over each step.
        m, k: (N,) at the nodes.
        mean, spread: of the Gaussian y at the first node.

    Returns:
        (2, N) log-density, lower bound first.
    """
    fine, known = _march(tables, clock, beta, gamma, log_factor, m, k, mean, spread)
    coarse, known_coarse = _march(
        tables,
        clock[::2].copy(),
        beta[::2] + beta[1::2],
        gamma[::2] + gamma[1::2],
        log_factor[::2] + log_factor[1::2],
        m[::2].copy(),
        k[::2].copy(),
        mean,
        spread,
    )
    for c in range(2):
        first = max((known[c] + 1) // 2, known_coarse[c])
        if first >= len(coarse[c]):
            continue
        last_change = (fine[c, 2 * first] - coarse[c, first]) / GAIN
        for j in range(known[c], 2 * first):
            fine[c, j] += last_change
        for j in range(first, len(coarse[c])):
            change = (fine[c, 2 * j] - coarse[c, j]) / GAIN
            if j > first:
                fine[c, 2 * j - 1] += 0.5 * (change + last_change)
            fine[c, 2 * j] += change
            last_change = change
    # In the gauge the Gaussian start is one of other mean and variance: a point that began a little earlier.
    variance = 1 / (1 / spread**2 - k[0])
    origin = variance * (mean / spread**2 - m[0])
    weight = 0.5 * (math.log(variance) + origin**2 / variance - mean**2 / spread**2) - math.log(spread)
    _fill_onset(clock - clock[0] + variance, beta, gamma, log_factor, m, k, origin, weight, known, fine)
    return fine


@njit(cache=True)
def _march(tables, clock, beta, gamma, log_factor, m, k, mean, spread):
    """One pass of `solve`, without extrapolation; also gives the first node of each bound that can be relied
    on."""
    n_nodes = len(clock)
    log_f = np.full((2, n_nodes), -math.inf)
    reliable = np.zeros((2, n_nodes), dtype=np.bool_)
    values, modes, heat = np.empty((3, 2 * tables.shape[2]))
    level = _level(spread * spread)
    n = SIZES[level]
    for i in range(n):
        y = -1 + 2 * (i + 1) / (n + 1)
        z = (y - mean) / spread
        values[i] = math.exp(-0.5 * z * z - m[0] * (y - mean) + 0.5 * k[0] * (y * y - mean * mean)) * 2 / (n + 1)
    _to_modes(tables[level], values, n, modes)
    log_scale = -math.log(spread * math.sqrt(2 * math.pi)) - m[0] * mean + 0.5 * k[0] * mean * mean
    for step in range(n_nodes - 1):
        level = min(level, _level(clock[step]))
        n = SIZES[level]
        # Half of the heat, the potential, the other half: at the end the density is one that has just
        # diffused, as it has to be for its slope at the bounds.
        elapsed = clock[step + 1] - clock[step]
        rate = -elapsed * math.pi * math.pi / 16
        factor, ratio = 1.0, math.exp(rate)
        change = ratio * ratio
        for j in range(n):
            factor *= ratio
            ratio *= change
            heat[j] = factor  # exp(rate (j + 1)^2)
            modes[j] *= factor
        _multiply(tables[level], n, beta[step], gamma[step], modes, values)
        lower, upper, total = 0.0, 0.0, 0.0
        sign = 1.0
        for j in range(n):
            modes[j] *= heat[j]
            term = 0.25 * math.pi * modes[j] * (j + 1)
            lower += term
            upper += sign * term
            total += abs(term)
            sign = -sign
        log_scale += log_factor[step] + math.log(total)
        for j in range(n):
            modes[j] /= total
        edge = log_scale - 0.5 * k[step + 1]
        # Echoes of earlier steps add up, so finer steps do not lower them.
        push = (abs(beta[step]) + 2 * abs(gamma[step])) * max(1.0, 0.08 * clock[step + 1] / elapsed)
        noise = ROUNDING + ECHO * push / (min(clock[step + 1], 1.0) * n**4)
        log_f[0, step + 1] = edge + math.log(max(lower / total, ROUNDING)) - m[step + 1]
        log_f[1, step + 1] = edge + math.log(max(upper / total, ROUNDING)) + m[step + 1]
        reliable[0, step + 1] = lower > noise * total
        reliable[1, step + 1] = upper > noise * total
    known = np.full(2, n_nodes)
    for c in range(2):
        run = 0
        for j in range(n_nodes):
            run = run + 1 if reliable[c, j] else 0
            if run == RUN:
                known[c] = j - RUN + 1
                break
    return log_f, known


@njit(cache=True)
def _fill_onset(clock, beta, gamma, log_factor, m, k, origin, weight, known, log_f):
    """Replace the nodes before the first known one, where rounding hides the flux.

    There the process has to go straight to the bound, so the potential acts along a Brownian bridge from the
    start to the bound: its mean, and the variance of its linear part (the first cumulants of a short-time
    expansion). That holds up to a factor that hardly changes with time; it is taken from the first known
    node.
    """
    n_nodes = len(clock)
    for c in range(2):
        side = 2.0 * c - 1.0
        # Sums over steps of the potential times 1, s, s^2 give the sum along any straight path.
        b0, b1, b2, g0, g1, g2, factor = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, weight
        way = side - origin
        for j in range(min(known[c] + 1, n_nodes)):
            s = clock[j]
            path = b0 * origin + b1 * way / s + g0 * origin**2 + 2 * g1 * origin * way / s + g2 * (way / s) ** 2
            path += g1 - g2 / s - (b2 - 0.5 * b1 * b1 / s)
            straight = log_density(s, abs(way)) + side * m[j] - 0.5 * k[j] + factor - path
            if j == known[c]:
                for i in range(j):
                    log_f[c, i] += log_f[c, j] - straight
                break
            log_f[c, j] = straight
            if j == n_nodes - 1:
                break
            middle = 0.5 * (clock[j] + clock[j + 1])
            b2 += beta[j] * (b1 + 0.5 * beta[j] * middle)
            b0 += beta[j]
            b1 += beta[j] * middle
            g0 += gamma[j]
            g1 += gamma[j] * middle
            g2 += gamma[j] * middle * middle
            factor += log_factor[j]
