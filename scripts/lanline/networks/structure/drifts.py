"""ssm-simulators' drifts as graphs, by their names in its registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lanline.networks.structure.graph import Value
from lanline.networks.structure.smooth import positive
from lanline.networks.structure.terms import Inputs


@dataclass(frozen=True)
class Drift:
    """A drift that changes with time.

    Attributes:
        at: mu(t), smoothed over ``window`` where it jumps.
        until: integral of mu from 0 to t; None where mu changes so slowly that its values will do.
        odd: the parameters that change sign where the bounds are exchanged.
    """

    at: Callable[[Value, Value], Value]
    until: Callable[[Value], Value] | None
    odd: tuple[str, ...]

    def means(self, u: Value, cells: int) -> Value:
        """Mean of mu in each of as many equal parts of (0, u)."""
        if self.until is None:
            return self.at(u * self.constant(u, (np.arange(cells) + 0.5) / cells), u)
        ends = self.until(u * self.constant(u, np.arange(1, cells + 1) / cells))
        difference = np.eye(cells) - np.eye(cells, k=-1)
        return ends.mix(difference) * float(cells) / u

    @staticmethod
    def constant(u: Value, numbers: np.ndarray) -> Value:
        return u.builder.constant(numbers.tolist())


def gamma_drift(inputs: Inputs) -> Drift:
    """v, and a bump of the form of a gamma density with the height c."""
    v, c = inputs.param("v"), inputs.param("c")
    n = positive(inputs.param("shape") - 1.0, 100.0, 0.1)
    shape, scale = n + 1.0, positive(inputs.param("scale"), 1000.0, 0.002)
    log_peak, log_middle, root = (n * scale).log(), (shape * scale).log(), (shape.log() * 0.5).exp()
    # Stirling's series for the area under a bump of height 1.
    area = scale * ((n.log() + math.log(2 * math.pi)) * 0.5 + 1.0 / (n * 12.0)).exp()

    def at(t: Value, window: Value) -> Value:
        return v + c * (n * (t.log() - log_peak + 1.0) - t / scale).at_most(0.0).at_least(-80.0).exp()

    def until(t: Value) -> Value:
        # Wilson & Hilferty's (1931) approximation of the gamma distribution.
        z = (((t.log() - log_middle) / 3.0).exp() - 1.0 + 1.0 / (shape * 9.0)) * root * 3.0
        return v * t + c * area * normal(z)

    return Drift(at, until, ("v", "c"))


def normal(z: Value) -> Value:
    """The normal distribution function, to 2e-4."""
    z = z.at_least(-6.0).at_most(6.0)
    return (z * (z * z * 0.03528 + 0.7988)).tanh() * 0.5 + 0.5


def conflict_ds(inputs: Inputs) -> Drift:
    """A target and a distractor that come and go exponentially."""
    return _exponentials(inputs, None, None)


def conflict_dsstimflex(inputs: Inputs) -> Drift:
    """The same, each from an onset of its own; the first one is at 0."""
    return _exponentials(inputs, *_relative_onsets(inputs))


def _relative_onsets(inputs: Inputs) -> tuple[Value, Value]:
    target, distractor = inputs.param("tonset"), inputs.param("donset")
    first = target.at_most(distractor)
    return target - first, distractor - first


def _exponentials(inputs: Inputs, target: Value | None, distractor: Value | None) -> Drift:
    p = {name: inputs.param(name) for name in ("v", "tinit", "dinit", "tfixedp", "tcoh", "dcoh")}
    rates = [positive(inputs.param(name), 1000.0, 0.003) for name in ("tslope", "dslope")]
    heights = [p["tcoh"] * (p["tinit"] - p["tfixedp"]), p["dcoh"] * p["dinit"]]
    level = p["tcoh"] * p["tfixedp"]
    onsets = [target, distractor]

    def until(t: Value) -> Value:
        out = p["v"] * t
        out = out + level * (t if target is None else (t - target).relu())
        for height, rate, onset in zip(heights, rates, onsets, strict=True):
            before = 1.0 if onset is None else _decayed(rate, onset)
            later = t if onset is None else t.at_least(onset)
            out = out + height / rate * (before - _decayed(rate, later))
        return out

    def at(t: Value, window: Value) -> Value:
        if target is not None:
            return _difference(until, t, window)
        return p["v"] + level + heights[0] * _decayed(rates[0], t) + heights[1] * _decayed(rates[1], t)

    return Drift(at, until, ("v", "tcoh", "dcoh"))


def _decayed(rate: Value, t: Value) -> Value:
    return (rate * t).at_most(80.0).at_least(-10.0).__neg__().exp()


def _difference(until: Callable[[Value], Value], t: Value, window: Value) -> Value:
    """The mean over the window before t: of drifts that jump."""
    return (until(t) - until(t - window)) / window


def conflict_stimflex(inputs: Inputs) -> Drift:
    """Two stimuli that stay once they have come: ssm-simulators gives these drifts no offsets."""
    return _steps(inputs, inputs.param("tonset"), inputs.param("donset"))


def conflict_stimflexrel1(inputs: Inputs) -> Drift:
    """The same, the first one from 0."""
    return _steps(inputs, *_relative_onsets(inputs))


def _steps(inputs: Inputs, *onsets: Value) -> Drift:
    v = inputs.param("v")
    heights = [inputs.param(f"v{which}") * inputs.param(f"{which}coh") for which in "td"]

    def until(t: Value) -> Value:
        out = v * t
        for height, onset in zip(heights, onsets, strict=True):
            out = out + height * (t - onset).relu()
        return out

    return Drift(lambda t, window: _difference(until, t, window), until, ("v", "tcoh", "dcoh"))


def attend(inputs: Inputs) -> Drift:
    """A spotlight that narrows."""
    names = [name for name in ("v", "ptarget", "pinner", "pouter") if name in inputs]
    p = {name: inputs.param(name) for name in names}
    sda, r = inputs.param("sda"), inputs.param("r")

    def at(t: Value, window: Value) -> Value:
        width = positive(sda - r * t, 100.0, 0.05)
        half = normal(0.5 / width)
        if "pinner" not in p:
            return p["v"] + p["pouter"] * 2.0 * (1.0 - half) + p["ptarget"] * (half * 2.0 - 1.0)
        inner = normal(1.5 / width)
        flankers = p["pouter"] * 2.0 * (1.0 - inner) + p["pinner"] * 2.0 * (inner - half)
        return p["v"] + flankers + p["ptarget"] * (half * 2.0 - 1.0)

    return Drift(at, None, tuple(names))


DRIFTS: dict[str, Callable[[Inputs], Drift]] = {
    "gamma_drift": gamma_drift,
    "conflict_ds_drift": conflict_ds,
    "conflict_dsstimflex_drift": conflict_dsstimflex,
    "conflict_stimflex_drift": conflict_stimflex,
    "conflict_stimflexrel1_drift": conflict_stimflexrel1,
    "attend_drift": attend,
    "attend_drift_simple": attend,
}
