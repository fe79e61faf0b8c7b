"""How far an Euler walk overshoots its bounds, as if they lay further out."""

from __future__ import annotations

import math

from lanline.config import Data

# -zeta(1/2) / sqrt(2 pi): mean overshoot of a Gaussian random walk with unit variance (Siegmund 1979; Broadie,
# Glasserman & Kou 1997).
OVERSHOOT = 0.5825971579390107


def outward_shift(data: Data) -> float:
    """Distance by which exact engines move the bounds outwards for labels of ``data.target``."""
    return OVERSHOOT * math.sqrt(data.delta_t) if data.target == "euler" else 0.0


def stable_overshoot(alpha: float, a: float, delta_t: float) -> float:
    """How far a walk with symmetric alpha-stable steps falls short of the supremum of the process, on average.

    By Spitzer's identity it is -zeta(1 - 1/alpha) E[X+] for steps X and all alpha > 1; alpha = 2 gives 0.5826
    standard deviations (Asmussen, Glynn & Pitman 1995; Bisewski & Ivanovs 2020 for stable processes). E[X+] grows
    without limit as alpha falls to 1, because of jumps that pass any bound by far. So jumps are cut to the size a of
    the bound here, by the tail C x^-(1+alpha) of their density.
    """
    from scipy.special import gamma, zeta

    alpha = max(alpha, 1 + 1e-6)  # the limit at 1 is finite
    mean = gamma(1 - 1 / alpha) / math.pi * delta_t ** (1 / alpha)
    tail = gamma(1 + alpha) * math.sin(math.pi * alpha / 2) / math.pi
    cut = tail * delta_t * a ** (1 - alpha) * (1 / (alpha - 1) - 1 / alpha)
    return float(-zeta(1 - 1 / alpha) * (mean - cut))
