"""First-passage densities of a Gaussian process between two moving bounds: the numerical core.

The process dX = (mu(t) - g X) dt + dW starts at x0 and ends at the first of the bounds +-b(t). Without bounds X(t)
would be Gaussian with a known mean M and variance V. Between them its density is written as that Gaussian times r, the
probability that a path to this point has met no bound on its way (a bridge). With y = X / b,

    b^2 dr/dt = r_yy / 2 + A r_y,    A = (g b^2 + b b' - b^2 / V) y + b (M / V - mu),    r(+-1) = 0,

and the flux through a bound, the density of t there, is the Gaussian at the bound times |r_y| / (2 b). What makes a
density small is in the Gaussian, by formula; r is smooth but for thin layers at the bounds. So small densities have
the same relative precision as large ones, and drifts may be strong, change quickly, and jump between steps.

Differences are exponentially fitted to the layers (Il'in 1969; Scharfetter & Gummel 1969) on cells that are smaller
near the bounds; steps in time are the L-stable singly diagonally implicit Runge-Kutta method of second order (Alexander
1977, SIAM J. Numer. Anal. 14, 1006-1021). Everything is done twice, with cells and steps of one pass twice as large as
those of the other, and extrapolated (Richardson).
"""

import math

import numpy as np

from lanline.engines.compiled import njit

# Cells at the bounds are this part of the distance from the start to the nearer one, if the stretch allows.
NEAR = 1 / 24
LARGEST_STRETCH = 2.7
# The first stage of a step ends after this part of it.
STAGE = 1 - math.sqrt(0.5)
# Largest share of the diagonal that the shift by the decay may take away: below 1 the matrix stays positive.
MOST_SHIFT = 0.7
TINY = 1e-300  # instead of 0 below a logarithm
# Parts of an interval at which the stages of its two fine steps and of its coarse step end, in order.
PARTS = np.array([STAGE / 2, STAGE, 0.5, 0.5 + STAGE / 2, 1.0])
FINE, COARSE = np.array([[0, 2], [3, 4]]), np.array([[1, 4]])


@njit(cache=True, nogil=True)
def solve(time, rate, slope, offset, lower, upper, mean, variance, distance, cells):
    """Log of |r_y| at both bounds at the nodes, and of the probability of having met none until the last.

    Args:
        time: (N,) nodes, seconds.
        rate: (N - 1, 5) 1 / b^2 at the `PARTS` of each interval between nodes.
        slope, offset: (N - 1, 5) A = slope y + offset.
        lower, upper: (1 - exp(-lower (1 + y))) (1 - exp(-upper (1 - y))) is r at the first node.
        mean, variance: of y at the last node, if there were no bounds.
        distance: from the start to the nearer bound, in y.
        cells: of the fine grid, even.

    Returns:
        (2, N) logs of slopes, lower bound first, and the log probability.
    """
    y = _grid(distance, cells)
    fine, fine_left = _march(y, time, rate, slope, offset, lower, upper, mean, variance, FINE)
    coarse, coarse_left = _march(y[::2].copy(), time, rate, slope, offset, lower, upper, mean, variance, COARSE)
    return fine + (fine - coarse) / 3, fine_left + (fine_left - coarse_left) / 3


@njit(cache=True)
def _grid(distance, cells):
    """Points from -1 to 1, closer together near the bounds."""
    low, high = 1e-3, LARGEST_STRETCH
    for _ in range(20):
        middle = 0.5 * (low + high)
        if middle / (math.cosh(middle) * math.sinh(middle)) * 2 / cells > NEAR * distance:
            low = middle
        else:
            high = middle
    y = np.empty(cells + 1)
    for i in range(cells + 1):
        y[i] = math.tanh(high * (2 * i / cells - 1)) / math.tanh(high)
    y[0], y[cells] = -1.0, 1.0
    return y


@njit(cache=True, error_model="numpy")
def _fit(x):
    """x / (1 - exp(-x)), by the continued fraction of the hyperbolic cotangent."""
    z = 0.25 * x * x
    w = min(z, 16.0)
    even = (10395.0 + w * (4725.0 + w * (210.0 + w))) / (10395.0 + w * (1260.0 + w * 21.0))
    return 0.5 * x + (even if z <= 16.0 else 0.5 * abs(x))


@njit(cache=True, error_model="numpy")
def _march(y, time, rate, slope, offset, lower, upper, mean, variance, stages):
    """One pass of `solve`, without extrapolation."""
    n = len(y) - 2
    n_nodes = len(time)
    r, rhs, before, after, width = np.empty((5, n))
    inverse, gap, reach = np.empty((3, n + 1))
    for i in range(n + 1):
        gap[i] = y[i + 1] - y[i]
        inverse[i] = 1 / gap[i]
        reach[i] = (y[i + 1] + y[i]) * gap[i]
    for i in range(n):
        width[i] = 1 / (gap[i] + gap[i + 1])
        r[i] = math.expm1(-lower * (1 + y[i + 1])) * math.expm1(-upper * (1 - y[i + 1]))
    fit, anti = np.empty((2, n + 1))
    log_slope = np.empty((2, n_nodes))
    log_slope[0, 0], log_slope[1, 0] = math.log(lower), math.log(upper)
    log_scale, decay = 0.0, 0.0
    for node in range(1, n_nodes):
        elapsed = (time[node] - time[node - 1]) / len(stages)
        for step in range(len(stages)):
            # What decays as in the step before goes into the operator, which keeps long steps accurate.
            for euler in range(2):
                length = elapsed if euler else STAGE * elapsed
                shift = min(decay, MOST_SHIFT / length)
                rhs[:] = r
                for stage in range(euler, 2):
                    part = stages[step, stage]
                    a, d = slope[node - 1, part], 2 * offset[node - 1, part]
                    c = length * rate[node - 1, part]
                    for i in range(n + 1):
                        x = a * reach[i] + d * gap[i]
                        fitted = _fit(x)
                        fit[i] = c * fitted * inverse[i]
                        anti[i] = c * (fitted - x) * inverse[i]
                    for i in range(n):
                        before[i] = anti[i] * width[i]
                        after[i] = fit[i + 1] * width[i]
                    _eliminate(before, after, 1 - length * shift, rhs)
                    if stage == 0:
                        for i in range(n):
                            rhs[i] = r[i] + (1 / STAGE - 1) * (rhs[i] - r[i])
                top, least = rhs[0], rhs[0]
                for i in range(n):
                    top = max(top, rhs[i])
                    least = min(least, rhs[i])
                # Where all but nothing is left after the step, it may turn negative. One of implicit Euler cannot.
                if least > 0.0:
                    break
            log_scale += math.log(top) - shift * elapsed
            decay = max(shift - math.log(top) / elapsed, 0.0)
            top = 1 / top
            for i in range(n):
                r[i] = rhs[i] * top
        a, d = slope[node - 1, 4], offset[node - 1, 4]
        log_slope[0, node] = log_scale + math.log(max(r[0], TINY) * _edge(a, d - a, gap[0]))
        log_slope[1, node] = log_scale + math.log(max(r[n - 1], TINY) * _edge(a, -d - a, gap[n]))
    # The free density times r, summed over the cells with the largest power of e taken out.
    nearest = (min(max(mean, -1.0), 1.0) - mean) ** 2
    left = 0.0
    for i in range(n):
        left += r[i] / width[i] * math.exp(0.5 * (nearest - (y[i + 1] - mean) ** 2) / variance)
    left /= 2 * math.sqrt(2 * math.pi * variance)
    return log_slope, log_scale - 0.5 * nearest / variance + math.log(max(left, TINY))


@njit(cache=True, error_model="numpy")
def _eliminate(before, after, extra, value):
    """Solve (extra + before[i] + after[i]) x[i] - before[i] x[i - 1] - after[i] x[i + 1] = value[i], in place.

    From both ends to the middle, which halves the chain of divisions. Overwrites ``before`` and ``after``.
    """
    n = len(value)
    half = n // 2
    down, up, below, above = 0.0, 0.0, 0.0, 0.0
    for i in range(half):
        pivot = 1 / (extra + after[i] + before[i] * (1 - down))
        down = after[i] * pivot
        below = (value[i] + before[i] * below) * pivot
        after[i] = down
        value[i] = below
        j = n - 1 - i
        pivot = 1 / (extra + before[j] + after[j] * (1 - up))
        up = before[j] * pivot
        above = (value[j] + after[j] * above) * pivot
        before[j] = up
        value[j] = above
    # n is odd: one point is left, between the two chains.
    pivot = 1 / (extra + before[half] * (1 - down) + after[half] * (1 - up))
    middle = (value[half] + before[half] * below + after[half] * above) * pivot
    value[half] = middle
    below, above = middle, middle
    for i in range(half - 1, -1, -1):
        below = value[i] + after[i] * below
        value[i] = below
        j = n - 1 - i
        above = value[j] + before[j] * above
        value[j] = above


@njit(cache=True, error_model="numpy")
def _edge(a, at_bound, h):
    """Slope at a bound over the value of r at the distance h from it.

    Towards the inside A is at_bound + a x: the layer exp(-2 at_bound x - a x^2) is fitted with A at the middle of
    the weight that it has.
    """
    where = h / (3 + max(2 * at_bound * h, 0.0))
    return _fit(2 * (at_bound + a * where) * h) / h
