"""Smooth functions that keep every value and gradient finite, and the driftless density between two bounds."""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import chebyshev, polynomial

from lanline.networks.structure.graph import Value

LOG_2PI = math.log(2 * math.pi)
# Where one series takes over from the other: with these terms both are right to 1e-5 of the density there.
SWITCH = 0.8
DECAY = math.pi**2 / 8  # of a driftless process between -1 and 1, per unit of time


def softplus(x: Value, sharpness: float) -> Value:
    """A smooth max(x, 0), log(1 + exp(k x)) / k."""
    return x.relu() + ((x.abs() * -sharpness).exp() + 1.0).log() / sharpness


def positive(x: Value, sharpness: float, least: float) -> Value:
    """x where it is larger than a few 1 / k, and nowhere less than ``least``."""
    return softplus(x + -least, sharpness) + least


def capped(x: Value, most: float) -> Value:
    """About x while that is small beside ``most``, and never more: x / (1 + x / most) for x >= 0."""
    return x / (x / most + 1.0)


def fading(x: Value, lowest: float, scale: float) -> Value:
    """x where it is above ``lowest``; below that it goes on to fall, as a logarithm."""
    return x.at_least(lowest) - ((lowest - x).relu() / scale + 1.0).log() * scale


def clipped(x: Value, low: float, high: float) -> Value:
    return x.at_least(low).at_most(high)


def _fit(function, degree: int) -> list[float]:
    """Coefficients of a polynomial for ``function`` on (0, 1)."""
    fitted = chebyshev.Chebyshev.interpolate(function, degree, domain=[0, 1])
    return fitted.convert(kind=polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef.tolist()


def _polynomial(x: Value, coefficients: list[float]) -> Value:
    out = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        out = out * x + coefficient
    return out


# sin(pi y / 2) / y as a function of y^2.
_SINE = _fit(lambda w: np.sinc(np.sqrt(w) / 2) * (math.pi / 2), 5)


def log_passage(s: Value, y: Value) -> tuple[Value, Value]:
    """Log-density of leaving (-1, 1) at time ``s`` through +1, without drift, and what the bound at -1 takes from it.

    Args:
        s: time, > 0.
        y: start, inside (-1, 1).

    Returns:
        The log-density, and its difference from that with one bound. As in `lanline.engines.closed_form.series`, with
        three images for small times and three eigenfunctions for large ones: one is taken at min(s, S), the other at
        max(s, S), less its value at S, so that there is no jump and nothing that overflows.
    """
    d = 1.0 - y
    early, late = s.at_most(SWITCH), s.at_least(SWITCH)
    single = d.log() - 0.5 * LOG_2PI - s.log() * 1.5 - d * d / (s * 2.0)
    nearest = d.log() - 0.5 * LOG_2PI - early.log() * 1.5 - d * d / (early * 2.0)
    far = (d + 4.0) * ((d * 4.0 + 8.0) / -early).exp() + (d - 4.0) * ((8.0 - d * 4.0) / -early).exp()
    images = (far / d + 1.0).at_least(1e-6).log()
    square = y * y
    cosine = y * _polynomial(square, _SINE)  # cos(pi d / 2)
    second, third = cosine * 4.0, cosine * cosine * 12.0 - 3.0

    def eigenfunctions(time: Value) -> Value:
        return (second * (time * (-3 * DECAY)).exp() + third * (time * (-8 * DECAY)).exp() + 1.0).at_least(1e-6).log()

    switch = y.builder.constant(SWITCH)
    beyond = (late - SWITCH) * -DECAY + eigenfunctions(late) - eigenfunctions(switch)
    log_f = nearest + images + beyond
    return log_f, log_f - single
