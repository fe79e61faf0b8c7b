"""One particle with Gaussian noise between two bounds: dX = (mu(t) - g X) dt + dW until |X| = b(t).

Everything is seen from the bound that was chosen: it lies at +b, and start, drift and the parameters that turn with
them are multiplied with the choice (+-1). The density does not change if both bounds are exchanged, so no network has
to learn it twice.

The leading term is the driftless density between the bounds (exact if they are straight: `log_passage` in the time
u / (b(0) b(u)), Gondan 2014), and a factor for drift and leak (Girsanov). The factor is exact for a constant drift. For
others it is the mean over the paths from start to bound, taken as those of a Gaussian bridge: without a leak these are
paths that return to 0 at the rate 3 pi^2 / (8 b^2), which is how fast a process forgets its start that has not met a
bound (the gap between the first two eigenvalues); both limits of it, early and late, are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lanline.models import Model
from lanline.networks.structure.bounds import BOUNDS, Bound
from lanline.networks.structure.drifts import DRIFTS, Drift
from lanline.networks.structure.graph import Value
from lanline.networks.structure.smooth import DECAY, LOG_2PI, capped, clipped, fading, log_passage, positive, softplus
from lanline.networks.structure.terms import Inputs, Terms

SIMULATORS = ("ddm", "ddm_flexbound", "ddm_flex", "ddm_flex_leak", "ornstein_uhlenbeck")
# Seconds: below the onset u runs into LEAST within a few 1 / SHARPNESS, and the leading term falls by WALL a second.
SHARPNESS, LEAST, WALL, CLEAR = 5000.0, 2e-6, 2000.0, 3e-3
CLOSED = 1e-3  # least half distance of the bounds
MOST_START = 0.995  # the start lies this far from the middle at most, in units of the bound
GAP = 3 * DECAY
TOO_LATE = 20_000.0  # by so much a second: a response a millisecond after the deadline is one in 10^9
CELLS = 8
EARLY = 0.5  # in units of b^2: where the forms of the leading term for early and late times are joined
LOWEST = -60.0  # from here on the leading term falls as a logarithm, and features see no lower one


def covers(model: Model) -> bool:
    return (
        model.simulator in SIMULATORS
        and model.boundary in BOUNDS
        and (model.drift in (None, "constant") or model.drift in DRIFTS)
        and {"v", "a", "z", "t"} <= set(model.params)
    )


def terms(model: Model, columns: tuple[str, ...]) -> Terms:
    """Features and leading term of a lan."""
    inputs = Inputs(model, columns)
    elapsed = inputs.builder.combination(rt=1.0, t=-1.0)
    process = process_of(inputs, positive(elapsed, SHARPNESS, LEAST))
    log_f = fading(process.log_density() - process.closed(), LOWEST, 30.0) - walls(inputs, elapsed)
    return Terms(features_of(inputs, process, log_f), (log_f,))


def walls(inputs: Inputs, elapsed: Value) -> Value:
    """What is taken off where there is no density: before the onset, where the gradient leads back, and from the
    trial's deadline on."""
    if "deadline" not in inputs:
        return wall(elapsed)
    late = inputs.builder.combination(rt=1.0, deadline=-1.0)
    return wall(elapsed) + softplus(late, TOO_LATE) * TOO_LATE


def wall(elapsed: Value) -> Value:
    return softplus(-elapsed + -CLEAR, 2000.0) * WALL


def process_of(inputs: Inputs, u: Value) -> Process:
    drift = DRIFTS[inputs.model.drift](inputs) if inputs.model.drift in DRIFTS else None
    start = clipped(inputs.param("z") * 2.0 - 1.0, -MOST_START, MOST_START)
    return Process(
        inputs=inputs,
        u=u,
        side=inputs.choice(),
        y=start * inputs.choice(),
        bound=BOUNDS[inputs.model.boundary](inputs),
        drift=drift,
        leak=inputs.param("g") if "g" in inputs else None,
        spread=inputs.param("sv") if "sv" in inputs else None,
    )


@dataclass(frozen=True)
class Process:
    """The process at the decision time ``u``; ``y`` is the start in units of b(0), seen from the bound of ``side``."""

    inputs: Inputs
    u: Value
    side: Value
    y: Value
    bound: Bound
    drift: Drift | None
    leak: Value | None
    spread: Value | None  # standard deviation of the drift over trials

    # --- the bounds alone ---
    @property
    def width(self) -> Value:
        """b(u)."""
        return positive(self.bound.at(self.u), 1000.0, CLOSED)

    @property
    def start(self) -> Value:
        """Where the particle starts, in units of its noise."""
        return self.y * self.bound.start

    @property
    def clock(self) -> Value:
        """Integral of 1 / b^2: exact for straight bounds."""
        if self.bound.straight:
            return self.u / (self.bound.start * self.width)
        # In parts that are taken as straight, shorter ones first.
        constant, edges = self.inputs.builder.constant, (np.arange(1, CELLS + 1) / CELLS) ** 2
        ends = positive(self.bound.at(self.u * constant(edges)), 1000.0, CLOSED)
        begins = ends.mix(np.eye(CELLS, k=-1)) + self.bound.start * constant(np.eye(CELLS)[0])
        return self.u * (constant(np.diff(edges, prepend=0.0)) / (begins * ends)).sum()

    def closed(self) -> Value:
        """What is taken off once the bounds have met."""
        if self.inputs.model.boundary == "constant":
            return self.inputs.constant(0.0)
        return softplus(-self.bound.at(self.u), 1000.0) * 100.0

    def driftless(self) -> Value:
        """Log-density without drift and leak."""
        b0, b, y = self.bound.start, self.width, self.y
        log_f, other_bound = log_passage(self.clock, y)
        late = log_f - b.log() * 1.5 - b0.log() * 0.5
        if self.inputs.model.boundary == "constant":
            return late
        if self.bound.straight:
            return late + self.bound.slope(self.u) * 0.5 * (b0 * y * y - b)
        # Late: slopes of the times in which the particle forgets its start, and finds its end.
        first, last = self._window(b0), self._window(b)
        at_first = (positive(self.bound.at(first), 1000.0, CLOSED) - b0) / first
        at_last = (b - positive(self.bound.at(self.u - last + LEAST), 1000.0, CLOSED)) / last
        late = late + (b0 * y * y * at_first - b * at_last) * 0.5
        # Early: the tangent approximation (Durbin 1985), less what the other bound takes.
        gap = b - self.start
        flux = positive(gap / self.u - self.bound.slope(self.u), 10.0, 1e-3)
        early = flux.log() - (self.u.log() + LOG_2PI) * 0.5 - gap * gap / (self.u * 2.0) + other_bound
        return late + (early - late) * self._earliness(EARLY)

    def _window(self, b: Value) -> Value:
        """A quarter of b^2, or u if that is less."""
        return self.u / (self.u / (b * b * 0.25) + 1.0)

    def _earliness(self, middle: float) -> Value:
        ratio = self.clock / middle
        return 1.0 / (ratio * ratio + 1.0)

    # --- drift and leak ---
    def drift_at(self) -> Value:
        """mu(u), seen from the chosen bound."""
        if self.drift is None:
            return self.side * self.inputs.param("v")
        return self.side * self.drift.at(self.u, self._window(self.width) * 0.2)

    def means(self) -> Value:
        """Mean of mu in equal parts of (0, u), seen from the chosen bound."""
        assert self.drift is not None
        return self.side * self.drift.means(self.u, CELLS)

    def mean(self) -> Value:
        return self.drift_at() if self.drift is None else self.means().sum() / CELLS

    def forgetting(self) -> tuple[Value, Value]:
        """Rates, times u, at which a bridge returns to 0: without and with the leak."""
        plain = (self.clock * GAP).at_least(1e-4)
        if self.leak is None:
            return plain, plain
        pulled = self.leak * self.u
        square = plain * plain + pulled * pulled
        return plain, (square.log() * 0.5).exp()

    def log_density(self) -> Value:
        out = self.driftless() + self.constant_drift()
        if self.leak is not None:
            out = out + self.pull()
        if self.drift is not None:
            out = out + self.changing_drift()
        return out

    def constant_drift(self) -> Value:
        """Of the mean drift, Gaussian over trials if it has a spread; exact without a leak."""
        m, gap = self.mean(), self.width - self.start
        if self.spread is not None:  # integrates out
            variance = self.spread * self.spread
            more = variance * self.u + 1.0
            return ((variance * gap + m * 2.0) * gap - m * m * self.u) / (more * 2.0) - more.log() * 0.5
        out = m * gap - m * m * self.u * 0.5
        if self.leak is None:
            return out
        _, rate = self.forgetting()
        pulled, turn = self.leak * self.u, (rate * 0.5).tanh() / rate
        sum_of_path = (self.width + self.start) * turn
        spread = (1.0 - turn * 2.0) / (rate * rate)
        return out + m * pulled * sum_of_path + m * m * self.u * pulled * pulled * spread * 0.5

    def pull(self) -> Value:
        """Of the leak alone: Mehler's kernel of the bridge with the leak, against the one without."""
        assert self.leak is not None
        plain, rate = self.forgetting()
        end, start = self.width, self.start
        (curve, chord, size), (curve_0, chord_0, size_0) = _mehler(rate), _mehler(plain)
        squares, product = (start * start + end * end) / (self.u * 2.0), start * end / self.u
        ratio = (size - size_0) * 0.5 - squares * (curve - curve_0) + product * (chord - chord_0)
        return ratio + self.leak * 0.5 * (self.u - end * end + start * start)

    def changing_drift(self) -> Value:
        """Of what the drift has beside its mean."""
        means, mean, builder = self.means(), self.mean(), self.inputs.builder
        _, rate = self.forgetting()
        # sinh(rate j / n) / sinh(rate): how much of a path's way to the bound lies behind it.
        share = np.arange(1, CELLS + 1) / CELLS
        up = (rate * builder.constant((share - 1.0).tolist())).at_least(-60.0).exp()
        covered = up * (1.0 - (rate * builder.constant((-2 * share).tolist())).at_least(-60.0).exp())
        covered = covered / (1.0 - (rate * -2.0).at_least(-60.0).exp())
        steps = np.eye(CELLS) - np.eye(CELLS, k=-1)
        to_end = covered.mix(steps)
        from_start = to_end.mix(np.eye(CELLS)[::-1])
        beside = means - mean
        along = (beside * (self.width * to_end - self.start * from_start)).sum()
        square = rate * rate
        energy = (beside * beside).sum() * self.u / CELLS * square / (square + 16.0)
        # Just before its end a path that has not met the bound yet keeps away from it.
        bend = self._earliness(0.3) * (self.drift_at() - mean) * self.u / ((1.0 - self.y) * self.bound.start)
        return along - energy * 0.5 + positive(bend + 1.0, 10.0, 0.05).log()


def _mehler(x: Value) -> tuple[Value, Value, Value]:
    """x coth x, x / sinh x, and the logarithm of the latter, for x > 0."""
    curve, fading = x / x.tanh(), (x * -2.0).at_least(-80.0).exp()
    log_chord = curve.log() - x - ((fading + 1.0) * 0.5).log()
    return curve, log_chord.at_least(-80.0).exp(), log_chord


def features_of(inputs: Inputs, process: Process, log_f: Value) -> dict[str, Value]:
    """What a network is given instead of the raw inputs."""
    b0, b, u, y = process.bound.start, process.width, process.u, process.y
    odd = process.drift.odd if process.drift else ("v",)
    side, clock, m = process.side, process.clock, process.mean()
    names = [name for name in inputs.model.params if name not in ("z", "t", "deadline")]
    out = {name: inputs.param(name) * side if name in odd else inputs.param(name) for name in names}
    distance = (1.0 - y) * b0
    if process.spread is not None:
        out["spread"] = process.spread * process.spread * capped(u, 4.0)
    out |= {
        "start": y,
        "log_time": (u + 3e-3).log(),
        "log_clock": (clock + 1e-2).log(),
        "clock": capped(clock, 4.0),
        "log_distance": distance.log(),
        "rarity": capped(distance * distance / (u * 2.0), 8.0),
        "pushed": m * distance,
        "energy": capped(m * m * u * 0.5, 8.0),
        "leading": log_f.at_least(LOWEST) / 10.0,
    }
    if inputs.model.boundary != "constant":
        out["log_width"] = (b + 1e-2).log()
    if process.drift is not None:
        out |= {"drift": process.drift_at(), "mean_drift": m}
    if process.leak is not None:
        out |= {"pull": process.leak * b * b, "pulled": capped(u, 4.0) * process.leak}
    return out
