"""The drift diffusion model with start point and non-decision time drawn for each trial.

The leading term is the mean over both by quadrature: of few nodes, as the network learns the rest. A drift that is
drawn too integrates out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lanline.models import DEADLINE_SUFFIX, Model
from lanline.networks.structure.bounds import BOUNDS
from lanline.networks.structure.drifts import normal
from lanline.networks.structure.graph import Value
from lanline.networks.structure.one_particle import (
    CLEAR,
    LEAST,
    LOWEST,
    MOST_START,
    SHARPNESS,
    Process,
    features_of,
    process_of,
    wall,
    walls,
)
from lanline.networks.structure.smooth import LOG_2PI, clipped, fading, positive
from lanline.networks.structure.terms import Inputs, Terms

# By name, because the registry holds the law of a non-decision time as code: others with t and st are uniform.
NORMAL = ("ddm_normal_st",)
NODES = 8
STEEPEST = 2.0
REACH = 4.5  # standard deviations of a non-decision time
# Nodes of the decision time lie closer together where it begins: at the cubes of those of Gauss and Legendre.
_AT, _WEIGHT = np.polynomial.legendre.leggauss(NODES)
_HALF = 0.5 * (_AT + 1)
PLACES, WEIGHTS = _HALF**3, 1.5 * _WEIGHT * _HALF**2


def covers(model: Model) -> bool:
    return model.simulator in ("full_ddm", "full_ddm_rv") and {"v", "a", "z"} <= set(model.params)


def terms(model: Model, columns: tuple[str, ...]) -> Terms:
    """Features and leading term of a lan."""
    inputs = Inputs(model, columns)
    least: Value | None
    most: Value | None
    law: Callable[[Value], Value] | None
    if "st" in inputs and ("t" not in inputs or model.name.removesuffix(DEADLINE_SUFFIX) in NORMAL):
        earliest, middle, least, most, law = _smooth_onset(inputs)
    elif "st" in inputs:
        earliest, middle, least, most, law = _uniform_onset(inputs)
    else:
        earliest = middle = inputs.builder.combination(rt=1.0, t=-1.0)
        least = most = law = None
    process = process_of(inputs, positive(middle, SHARPNESS, LEAST))
    if least is None or most is None or law is None:
        log_f = _mean_over_starts(process)
    else:
        first, last = positive(least, SHARPNESS, LEAST), positive(most, SHARPNESS, 2 * LEAST)
        span = positive(last - first, SHARPNESS, LEAST)
        nodes = first + span * inputs.builder.constant(PLACES)
        values = _mean_over_starts(process_of(inputs, nodes)) + law(nodes)
        log_f = log_sum(values + inputs.builder.constant(np.log(WEIGHTS))) + span.log()
        if inputs.model.simulator == "full_ddm":
            log_f = log_sum_of_two(log_f, _at_once(inputs, middle))
    log_f = fading(log_f, LOWEST, 30.0) - walls(inputs, earliest)
    features = features_of(inputs, process, log_f)
    if least is not None and most is not None:
        features["first"], features["last"] = (
            (positive(value, SHARPNESS, LEAST) + 3e-3).log() for value in (least, most)
        )
    return Terms(features, (log_f,))


Onset = tuple[Value, Value, Value, Value, Callable[[Value], Value]]


def _spread(inputs: Inputs, name: str) -> Value:
    return positive(inputs.param(name), 5000.0, 5e-4)


def _uniform_onset(inputs: Inputs) -> Onset:
    """Times since the earliest and the middle onset, range of decision times, and log-density of the onset at these:
    uniform in t +- st."""
    middle, spread = inputs.builder.combination(rt=1.0, t=-1.0), _spread(inputs, "st")
    return middle + spread, middle, middle - spread, middle + spread, lambda u: -(spread * 2.0).log()


def _smooth_onset(inputs: Inputs) -> Onset:
    """The same of a normal distribution, above 0 if its mean is ``mt``, or of a Rayleigh distribution."""
    rt, spread = inputs.builder.input("rt"), _spread(inputs, "st")
    if "mt" not in inputs and "t" not in inputs:

        def rayleigh(u: Value) -> Value:
            onset = positive(rt - u, 1000.0, 1e-4) / spread
            return onset.log() - spread.log() - onset * onset * 0.5

        return rt, rt - spread, rt - spread * REACH, rt, rayleigh
    mean = "mt" if "mt" in inputs else "t"
    middle = inputs.builder.combination(**{"rt": 1.0, mean: -1.0})

    above = (normal(inputs.param(mean) / spread) + 1e-6).log() if mean == "mt" else inputs.constant(0.0)

    def gaussian(u: Value) -> Value:
        deviate = (u - middle) / spread
        return -(deviate * deviate) * 0.5 - spread.log() - 0.5 * LOG_2PI - above

    low, high = middle - spread * REACH, middle + spread * REACH
    return (rt, middle, low, high.at_most(rt), gaussian) if mean == "mt" else (high, middle, low, high, gaussian)


def _mean_over_starts(process: Process) -> Value:
    """Log of the mean density over starts that are uniform about the process's own.

    From two starts: their mean in logarithms, and how much they differ. Right to third order in the range, and for any
    range where the density is exponential in the start, as it is early on.
    """
    inputs = process.inputs
    if "sz" not in inputs:
        return process.log_density()
    b = process.bound.start
    radius = _spread(inputs, "sz") / b if inputs.model.simulator == "full_ddm" else _spread(inputs, "sz") * 2.0
    low, high = (clipped(process.y + shift, -MOST_START, MOST_START) for shift in (-radius, radius))
    middle, half = (low + high) * 0.5, positive((high - low) * 0.5, 1000.0, 1e-4)
    ends = [replace(process, y=middle + half * k).log_density() for k in (-math.sqrt(1 / 3), math.sqrt(1 / 3))]
    apart = ((ends[1] - ends[0]) * 0.5).abs() + 1e-3
    both = ends[0].at_least(ends[1]) + ((apart * -2.0).at_least(-60.0).exp() * 0.5 + 0.5).log()
    steep = apart.at_most(STEEPEST)
    whole, sampled = steep * math.sqrt(3), steep * 2.0
    # log(sinh(x) / x) - log cosh(x / sqrt 3)
    ratio = (1.0 - (whole * -2.0).exp()).log() - ((sampled * -1.0).exp() + 1.0).log() - whole.log()
    return both + ratio + whole - steep + (half / radius).log()


def _at_once(inputs: Inputs, middle: Value) -> Value:
    """Log-density of trials that start beyond the chosen bound, and so end with their non-decision time."""
    b = BOUNDS[inputs.model.boundary](inputs).start
    radius, spread = _spread(inputs, "sz"), _spread(inputs, "st")
    beyond = (inputs.param("z") * 2.0 - 1.0) * inputs.choice() * b + radius - b
    share = positive(beyond, 5000.0, 1e-9) / (radius * 2.0)
    return share.log() - (spread * 2.0).log() - wall(middle + spread + CLEAR) - wall(spread - middle + CLEAR)


def log_sum_of_two(a: Value, b: Value) -> Value:
    return a.at_least(b) + ((-(a - b).abs()).at_least(-80.0).exp() + 1.0).log()


def log_sum(values: Value) -> Value:
    """Logarithm of the sum of exponentials of the numbers of each row: a power of two of them."""
    largest = values
    while largest.width > 1:
        half = largest.width // 2
        largest = largest.mix(np.eye(half, 2 * half)).at_least(largest.mix(np.eye(half, 2 * half, k=half)))
    return largest + (values - largest).at_least(-80.0).exp().sum().log()
