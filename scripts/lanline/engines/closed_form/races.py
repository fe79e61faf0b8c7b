"""Exact densities of races between independent accumulators: the first to finish determines the choice.

With densities f_j and survival functions S_j of the finishing times, the density of (t, choice c) is
f_c(t) prod_{j != c} S_j(t). The accumulators differ in how they finish:

- Linear ballistic accumulators (Brown & Heathcote 2008, Cognitive Psychology 57, 153-178) rise from a start
  point in U(0, A) to the bound b, at a rate that is drawn for each trial. ssm-simulators draws |N(v, 0.1^2)|,
  not N(v, 1) as the paper does, so that every accumulator finishes; ``lba_angle`` lets the bound fall linearly.
- Racing diffusions (Tillman, Van Zandt & Logan 2020, Psychon. Bull. Rev. 27, 911-936) start in U(0, A) and
  are Wiener processes with drift v and one bound b.
- Poisson counters finish with their k-th event, at a time that is Gamma(k, 1 / r).

Start points above the bound (A > b is within the registry's bounds) give no response time: ssm-simulators
returns a negative time, or exactly the non-decision time. Such a trial has no density and counts as an
omission here; all others have the density that the formulas give.

Ballistic and Poisson accumulators are drawn without steps in time, so both targets are the same for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, gammaincc, gammaln, ndtr

from lanline.engines.overshoot import OVERSHOOT
from lanline.engines.tables import Table, make_table
from lanline.models import Model

# Standard deviation of the rates of ballistic accumulators: fixed in ssm-simulators' Simulator.
LBA_SPREAD = 0.1
N_NODES = 192
# Nodes begin where this share of the responses is in, and end where as little as the second is still to come.
FIRST, LAST = 1e-6, 1e-10
SEARCH = 128
# Start points closer together than this are one: keeps quotients finite for A = 0.
SMALLEST_RANGE = 1e-6
NARROW = np.polynomial.legendre.leggauss(8)
WIDE = np.polynomial.legendre.leggauss(24)

# Decision times (B, n) to log-densities and log survival functions of the C accumulators, (C, B, n) each.
Finishing = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def covers(model: Model) -> bool:
    """Whether this engine has the density of ``model``."""
    return model.boundary == "constant" and model.simulator in _FAMILIES


@dataclass(frozen=True)
class Race:
    """Densities of B thetas; see `lanline.engines.Densities`.

    Attributes:
        finishing: the accumulators.
        table: tabulated densities, for sampling and probabilities only.
    """

    finishing: Finishing
    table: Table

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.table.sample(n, rng)

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        time = rt - self.table.onset[:, None]
        inside = (time > 0) & (time < self.table.limit[:, None])
        joint = _joint(*self.finishing(np.where(inside, time, 1.0)))
        index = np.searchsorted(self.table.choices, choice)
        return np.where(inside, np.take_along_axis(joint, index[:, None], axis=1)[:, 0], -np.inf)

    def choice_probability(self) -> np.ndarray:
        return self.table.choice_probability()

    def omission_probability(self) -> np.ndarray:
        return self.table.omission_probability()


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> Race:
    """Densities at each row of ``theta``; arguments as in `lanline.engines.closed_form.ddm.densities`."""
    column = {name: np.asarray(theta[:, i], dtype=float)[:, None] for i, name in enumerate(model.params)}
    onset = column["t"][:, 0] if "t" in column else np.zeros(len(theta))
    if model.simulator == "racing_diffusion_model":
        # The simulator reports the start of the step in which an accumulator arrives.
        onset = np.maximum(onset - (shift / OVERSHOOT) ** 2, 0.0)
    finishing, scale = _FAMILIES[model.simulator](model, column, shift)
    decision_limit = limit - onset
    time = _nodes(finishing, np.maximum(decision_limit, 1e-9))
    log_f = _joint(*finishing(time))
    scales = np.repeat(scale, len(model.choices), axis=1)
    return Race(finishing, make_table(onset, decision_limit, np.log(time), log_f, scales, model.choices))


def _joint(log_f: np.ndarray, log_s: np.ndarray) -> np.ndarray:
    """(B, C, n) log-densities of time and choice, from (C, B, n) of the single accumulators."""
    out = [log_f[c] + sum(log_s[j] for j in range(len(log_f)) if j != c) for c in range(len(log_f))]
    return np.stack(out, axis=1)


def _nodes(finishing: Finishing, limit: np.ndarray) -> np.ndarray:
    """(B, N) increasing times: half of them spread over log time, half over the probability of a response."""
    log_limit = np.log(limit)[:, None]
    first = np.full_like(log_limit, math.log(1e-12))
    last = log_limit
    # A first pass finds where the responses are, a second one looks there.
    for _ in range(2):
        u = first + (last - first) * np.linspace(0, 1, SEARCH)
        survival = np.exp(finishing(np.exp(u))[1].sum(axis=0))
        # Relative to the trials that respond at all; not quite so where the first time is late.
        done = 1.0 - survival / np.maximum(survival[:, :1], 1e-300)
        begin = np.maximum((done < FIRST).sum(axis=1) - 1, 0)
        end = np.minimum((done < 1.0 - LAST).sum(axis=1), SEARCH - 1)
        end = np.maximum(end, begin + 1)
        rows = np.arange(len(u))
        begin = np.minimum(begin, SEARCH - 2)
        first, last = u[rows, begin][:, None], u[rows, np.minimum(end, SEARCH - 1)][:, None]
    inside = np.clip((u - first) / (last - first), 0, 1)
    position = inside + np.clip(done, 0, 1) / np.maximum(done[:, -1:], 1e-12)
    nodes = np.empty((len(u), N_NODES))
    for i in range(len(u)):
        keep = slice(begin[i], end[i] + 1)
        at = position[i, keep]
        nodes[i] = np.interp(np.linspace(at[0], at[-1], N_NODES), at, u[i, keep])
    return np.exp(nodes)


def _ballistic(model: Model, column: dict[str, np.ndarray], shift: float) -> tuple[Finishing, np.ndarray]:
    bound, start = (column["b"], column["A"]) if "b" in column else (column["a"], column["z"])
    collapse = np.tan(column["theta"]) if "theta" in column else np.zeros_like(bound)
    rates = _rates(model, column)
    start = np.maximum(start, SMALLEST_RANGE)
    low, high = np.maximum(bound - start, 0.0), np.maximum(bound, SMALLEST_RANGE)

    def finishing(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A start point at the distance d from the bound is there at time t if the rate is d / t - collapse.
        slowest, fastest = (np.maximum(d / time - collapse, 0.0) / LBA_SPREAD for d in (low, high))
        drop = collapse / LBA_SPREAD
        log_f, log_s = [], []
        for rate in rates:
            v = rate / LBA_SPREAD
            f = _moment(slowest - v, fastest - v, v + drop) + _moment(slowest + v, fastest + v, drop - v)
            log_f.append(_log(f * LBA_SPREAD / start))
            log_s.append(_log(_folded_mass(slowest, fastest, v) * LBA_SPREAD * time / start))
        return np.stack(log_f), np.stack(log_s)

    return finishing, np.zeros_like(bound)


def _folded_mass(low: np.ndarray, high: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Integral over (low, high) of P(|N(v, 1)| < x)."""
    wide = _ramp(high - v) - _ramp(low - v) - _ramp(-low - v) + _ramp(-high - v)
    return _by_width(lambda x: ndtr(x - v) - ndtr(-x - v), low, high, wide)


def _diffusing(model: Model, column: dict[str, np.ndarray], shift: float) -> tuple[Finishing, np.ndarray]:
    bound, start = column["b"] + shift, np.maximum(column["A"], SMALLEST_RANGE)
    rates = _rates(model, column)
    low = np.maximum(bound - start, 0.0)

    def finishing(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        root = np.sqrt(time)
        log_f, log_s = [], []
        for v in rates:
            f = _moment(low / root - v * root, bound / root - v * root, v * root)
            log_f.append(_log(f / (start * root)))
            log_s.append(_log(_wald_mass(low / root, bound / root, v * root) * root / start))
        return np.stack(log_f), np.stack(log_s)

    return finishing, 0.5 * low**2


def _wald_mass(low: np.ndarray, high: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Integral over (low, high) of the probability that a unit Wiener process with drift v stays below x for a
    unit of time."""
    # Beyond 9 standard deviations it does so surely.
    top = np.clip(v + 9.0, low, high)
    nodes, weights = WIDE
    half = 0.5 * (top - low)
    out = high - top
    for node, weight in zip(nodes, weights, strict=True):
        x = low + half * (node + 1)
        # P = Phi(x - v) - exp(2 v x) Phi(-x - v); Mills ratios keep its relative precision where it is small.
        density = np.exp(-0.5 * (x - v) ** 2)
        reflected = 0.5 * erfcx((x + v) / math.sqrt(2))
        small = density * (0.5 * erfcx((v - x).clip(0) / math.sqrt(2)) - reflected)
        out = out + weight * half * np.where(x < v, small, ndtr(x - v) - density * reflected)
    return out


def _counting(model: Model, column: dict[str, np.ndarray], shift: float) -> tuple[Finishing, np.ndarray]:
    rates, counts = np.stack([column["r1"], column["r2"]]), np.stack([column["k1"], column["k2"]])

    def finishing(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_f = counts * np.log(rates) + (counts - 1) * np.log(time) - rates * time - gammaln(counts)
        return log_f, _log(gammaincc(counts, rates * time))

    return finishing, np.zeros_like(column["t"])


def _rates(model: Model, column: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [column[f"v{j}"] for j in range(len(model.choices))]


def _moment(low: np.ndarray, high: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Integral over (low, high) of (c + u) phi(u), where c + u >= 0."""
    mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    wide = c * mass + _normal(low) - _normal(high)
    return _by_width(lambda u: (c + u) * _normal(u), low, high, wide)


def _by_width(
    function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    """Integral over (low, high): ``wide``, its formula, or quadrature where the formula would cancel."""
    nodes, weights = NARROW
    half = 0.5 * (high - low)
    narrow = np.zeros(half.shape)
    for node, weight in zip(nodes, weights, strict=True):
        narrow += weight * half * function(low + half * (node + 1))
    return np.where(half < 0.5, narrow, wide)


def _ramp(u: np.ndarray) -> np.ndarray:
    """Integral of the normal distribution function up to u."""
    return u * ndtr(u) + _normal(u)


def _normal(u: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithm, -inf where rounding has left nothing."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(values, 0.0))


_FAMILIES = {
    "lba_vanilla": _ballistic,
    "lba_angle": _ballistic,
    "racing_diffusion_model": _diffusing,
    "poisson_race": _counting,
}
