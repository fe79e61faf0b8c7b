"""ssm-simulators' bounds as graphs, by their names in its registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lanline.networks.structure.graph import Value
from lanline.networks.structure.smooth import positive
from lanline.networks.structure.terms import Inputs

STEEPEST = 1.5  # radians: tan is 14


@dataclass(frozen=True)
class Bound:
    """b(t) and its slope at times t of any width, for times > 0; b may fall below 0."""

    at: Callable[[Value], Value]
    slope: Callable[[Value], Value]
    start: Value  # b(0)
    straight: bool = False


def separation(inputs: Inputs) -> Value:
    """b(0): ``a``, or half of it for the simulator whose bounds are 0 and a."""
    a = positive(inputs.param("a"), 100.0, 0.02)
    return a / 2.0 if inputs.model.simulator == "ddm" else a


def constant(inputs: Inputs) -> Bound:
    a = separation(inputs)
    return Bound(lambda t: a, lambda t: inputs.constant(0.0), a, straight=True)


def angle(inputs: Inputs) -> Bound:
    a, fall = separation(inputs), tangent(inputs.param("theta").at_least(-STEEPEST).at_most(STEEPEST))
    return Bound(lambda t: a - t * fall, lambda t: -fall, a, straight=True)


def tangent(x: Value) -> Value:
    """tan x for abs(x) <= 1.5, by Lambert's continued fraction."""
    w = x * x
    above = (w * 21.0 - 1260.0) * w + 10395.0
    below = ((210.0 - w) * w - 4725.0) * w + 10395.0
    return x * above / below


def weibull(inputs: Inputs) -> Bound:
    a, alpha = separation(inputs), inputs.param("alpha")
    log_beta = positive(inputs.param("beta"), 100.0, 0.02).log()

    def fallen(t: Value) -> Value:
        return (alpha * (t.log() - log_beta)).at_most(4.0).exp()

    def at(t: Value) -> Value:
        return a * (-fallen(t)).exp()

    return Bound(at, lambda t: -(at(t) * alpha * fallen(t) / t), a)


BOUNDS: dict[str, Callable[[Inputs], Bound]] = {"constant": constant, "angle": angle, "weibull_cdf": weibull}
