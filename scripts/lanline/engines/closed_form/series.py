"""The first-passage time density of a driftless Wiener process between two fixed bounds, as a series.

Everything here is for unit noise and bounds at -1 and +1. Drift, width and linear collapse are factors that
`lanline.engines.closed_form.ddm` puts on top.
"""

import math

from lanline.engines.compiled import njit

# Both series reach the precision of a double on their side of this time: the next small-time term is below
# exp(-100), the next large-time term below exp(-54) of the sum.
SWITCH = 0.6
LARGE_TIME_TERMS = 8
HALF_PI = 0.5 * math.pi
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@njit(cache=True)
def log_density(time: float, distance: float) -> float:
    """Log-density of leaving (-1, 1) at ``time`` through the bound that is ``distance`` away from the start.

    Small times sum images, large times sum eigenfunctions: Navarro & Fuss (2009, J. Math. Psychol. 53,
    222-230, equations 5 and 6, for bounds at 0 and 2), with a fixed number of terms on either side of
    `SWITCH` (cf. Gondan, Blurton & Kesselmeier 2014, J. Math. Psychol. 60, 20-22).

    Args:
        time: since the start of the process; the noise has variance ``time``.
        distance: from the start point to the bound of exit, in (0, 2).

    Returns:
        Natural logarithm of the (defective) density; -inf where ``time`` <= 0.
    """
    if time <= 0.0:
        return -math.inf
    if time < SWITCH:
        # sum_k (1 + 4k/d) exp(-((d + 4k)^2 - d^2) / 2s), the leading exponential taken out
        images = 1.0
        for k in range(1, 3):
            right, left = distance + 4.0 * k, distance - 4.0 * k
            images += (
                right * math.exp((distance * distance - right * right) / (2 * time))
                + left * math.exp((distance * distance - left * left) / (2 * time))
            ) / distance
        if images <= 0.0:
            return -math.inf
        log_time = math.log(time)
        return math.log(distance * images) - LOG_SQRT_2PI - 1.5 * log_time - distance * distance / (2 * time)
    # pi/4 sum_k k sin(k pi d / 2) exp(-k^2 pi^2 s / 8), the slowest decay taken out
    rate = math.pi * math.pi * time / 8
    base = math.exp(-rate)
    step = base * base * base  # exp(-rate (k^2 - (k-1)^2)) for k = 2, times base^2 for each further k
    decay = 1.0
    angle = HALF_PI * distance
    sine, previous, twice_cosine = math.sin(angle), 0.0, 2 * math.cos(angle)
    total = sine
    for k in range(2, LARGE_TIME_TERMS + 1):
        sine, previous = twice_cosine * sine - previous, sine
        decay *= step
        step *= base * base
        total += k * sine * decay
    if total <= 0.0:
        return -math.inf
    return math.log(0.5 * HALF_PI * total) - rate
