"""Accuracy of exact labels over random thetas, each engine against a reference of its own.

    python benchmarks/accuracy.py [--models ddm weibull ...] [--thetas 1000]

Thetas are uniform within the registry's bounds, response times up to 20 s: half of them drawn from the density, half
log-uniform after the onset with either choice. Errors are absolute differences of log-densities where the reference is
above -16. The mass error is the largest deviation from 1 of the total probability, the survival at the time limit
included. References: `first_passage` against the closed form, or itself with three times as many steps and cells;
closed forms against the first-passage engine, or plain quadrature of the model's definition; `race_*` with constant
bounds against eigenfunctions (not at times at which these cancel), with falling ones against eight times as many nodes;
`ddm_seq2*` and `ddm_par2*` against three times as many of everything.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lanline.config import Data
from lanline.engines import densities, engines_of
from lanline.engines.closed_form import ddm, random_onset, softmax
from lanline.engines.first_passage import race, two_bounds, two_stage
from lanline.models import Model, get_model, model_names
from lanline.theta import sample_theta

LOWEST = -16.0
LIMIT = 20.0
# Long enough that next to nobody is left, for the mass of engines that do not compute the survival.
LONG = 1e5
CHUNK = 50
# Composite Gauss-Legendre rule on (0, 1).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
PANELS = 24
POINTS = ((np.arange(PANELS)[:, None] + 0.5 * (_NODES + 1)) / PANELS).ravel()
WEIGHTS = np.tile(0.5 * _WEIGHTS / PANELS, PANELS)

Reference = Callable[[Model, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Accuracy:
    """Errors of one engine for one model."""

    mean: float
    high: float  # 99.9th percentile
    mass: float
    not_finite: int


def measure(model: Model, engine: str, n_theta: int) -> Accuracy:
    data, long = Data(engine=engine), Data(engine=engine, max_t=LONG)
    rng = np.random.default_rng(5)
    reference = reference_of(model, engine)
    n = 50 if engine == "first_passage" else 10
    errors, mass, not_finite = [], 0.0, 0
    for begin in range(0, n_theta, CHUNK):
        theta = sample_theta(model, min(CHUNK, n_theta - begin), rng)
        density = densities(model, theta, data, rng)
        drawn, drawn_choice = density.sample(n, rng)
        onset = theta[:, [model.params.index("t")]] if "t" in model.params else 0.0
        spread = onset + np.exp(rng.uniform(math.log(3e-3), math.log(LIMIT), (len(theta), n)))
        rt = np.concatenate([np.nan_to_num(drawn, nan=1.0), spread], axis=1)
        either = rng.choice(model.choices, spread.shape)
        choice = np.concatenate([np.nan_to_num(drawn_choice, nan=model.choices[0]), either], axis=1)
        expected, actual = reference(model, theta, rt, choice), density.log_density(rt, choice)
        counted = (expected > LOWEST) & (rt < LIMIT)
        not_finite += np.count_nonzero(~np.isfinite(actual[counted]))
        errors.append(np.abs(actual - expected)[counted])
        if two_bounds.covers(model):
            _, left = two_bounds.densities_and_survival(model, theta, np.full(len(theta), LIMIT), 0.0)
            total = density.choice_probability().sum(axis=1) + left
        else:
            total = densities(model, theta, long, rng).choice_probability().sum(axis=1) / responding(model, theta)
        mass = max(mass, np.nanmax(np.abs(total - 1.0)))
    joined = np.concatenate(errors)
    return Accuracy(joined.mean(), np.quantile(joined, 0.999), mass, not_finite)


def responding(model: Model, theta: np.ndarray) -> np.ndarray:
    """(B,) share of the trials that respond ever; nan where it is not known, as bounds may run away.

    Accumulators that start above their bound do not respond.
    """
    if (race.covers(model) or two_stage.covers(model)) and "theta" in model.params:
        return np.where(theta[:, model.params.index("theta")] < 0, np.nan, 1.0)
    if not {"A", "b"} <= set(model.params):
        return np.ones(len(theta))
    start, bound = (theta[:, model.params.index(name)] for name in ("A", "b"))
    return np.minimum(bound / start, 1.0) ** len(model.choices)


def reference_of(model: Model, engine: str) -> Reference:
    if race.covers(model):
        return of_eigenfunctions if model.boundary == "constant" else of_finer_race
    if two_stage.covers(model):
        return of_finer_levels
    if engine == "first_passage":
        return of_closed_form if ddm.covers(model) else of_two_bounds
    if two_bounds.covers(model):
        return of_two_bounds
    if random_onset.covers(model):
        return of_smooth_onset
    return {
        "ddm": of_legacy_ddm,
        "full_ddm": of_variability,
        "full_ddm_rv": of_variability if "st" in model.params else of_drifts,
        "lba_vanilla": of_race,
        "lba_angle": of_race,
        "racing_diffusion_model": of_race,
        "poisson_race": of_race,
    }[model.simulator]


def of_two_bounds(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    limit = np.full(len(theta), LIMIT)
    density, _ = two_bounds.densities_and_survival(model, theta, limit, 0.0, refine=3)
    return density.log_density(rt, choice)


def of_finer_race(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    limit = np.full(len(theta), LIMIT)
    return race.densities(model, theta, limit, 0.0, refine=8).log_density(rt, choice)


def of_finer_levels(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    limit = np.full(len(theta), LIMIT)
    return two_stage.densities(model, theta, limit, 0.0, refine=3).log_density(rt, choice)


def of_eigenfunctions(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Races with a constant bound, by the modes of a particle above a floor; nan where these do not add up yet."""
    out = np.empty(rt.shape)
    for i, row in enumerate(theta):
        value = dict(zip(model.params, row, strict=True))
        t, a = rt[i] - value["t"], value["a"]
        f, s, way = [], [], []
        for j in range(len(model.choices)):
            v, start = value[f"v{j}"], value.get(f"z{j}", value.get("z", 0.0))
            way.append(a * (1 - start))
            waves = wave_numbers(v * a)[:, None]
            rate = 0.5 * ((waves / a) ** 2 + v * v)
            norm = a * (0.5 - np.sin(2 * waves) / (4 * waves))
            weight = waves / a * np.sin(waves * (1 - start)) / norm * np.exp(v * way[j] - rate * t)
            f.append(0.5 * weight.sum(axis=0))
            s.append(0.5 * (weight / rate).sum(axis=0))
        joint = [f[c] * math.prod(s[j] for j in range(len(s)) if j != c) for c in range(len(f))]
        # Terms up to exp(30) times as large as the sum leave it three digits.
        resolved = t > max(max(way) ** 2 / 30, 6e-4 * a * a)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[i] = np.where(resolved, np.log(np.choose(choice[i].astype(int), joint)), np.nan)
    return out


def wave_numbers(pull: float) -> np.ndarray:
    """The 200 first k with k cot(k) = -pull, by bisection."""
    low = (np.arange(200) + 0.5) * math.pi
    high = low + 0.5 * math.pi
    for _ in range(60):
        middle = 0.5 * (low + high)
        left = np.cos(middle) * middle + pull * np.sin(middle)
        # The sign at the lower end alternates.
        below = left * np.sin(low) > 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


def of_closed_form(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    return ddm.densities(model, theta, np.full(len(theta), LIMIT), 0.0).log_density(rt, choice)


def of_legacy_ddm(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Bounds at 0 and a are those of the ddm with half of a."""
    return of_two_bounds(get_model("ddm"), theta * [1.0, 0.5, 1.0, 1.0], rt, choice)


def of_smooth_onset(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The mean density of ddm over the non-decision times before each response, on a uniform grid."""
    out, grid = np.empty(rt.shape), (np.arange(4000) + 0.5) / 4000
    for i, row in enumerate(theta):
        value = dict(zip(model.params, row, strict=True))
        if "mt" in value:
            law = stats.truncnorm(-value["mt"] / value["st"], np.inf, value["mt"], value["st"])
        else:
            law = stats.norm(value["t"], value["st"]) if "t" in value else stats.rayleigh(0, value["st"])
        first, last = law.ppf(1e-15), law.isf(1e-15)
        span = np.clip(np.minimum(last, rt[i]) - first, 0.0, None)[:, None]
        onset = first + span * grid
        time, side = (rt[i][:, None] - onset).ravel(), np.repeat(choice[i], len(grid))
        plain = np.array([[value["v"], value["a"], value["z"], 0.0]])
        f = np.exp(of_closed_form(get_model("ddm"), plain, time[None], side[None])).reshape(onset.shape)
        with np.errstate(divide="ignore"):
            out[i] = np.log((f * law.pdf(onset) * span).mean(axis=1))
    return out


def of_drifts(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The mean density of ddm over a grid of drifts."""
    column = {name: theta[:, i] for i, name in enumerate(model.params)}
    deviates = np.linspace(-9, 9, 601)
    mean = np.zeros(rt.shape)
    for deviate in deviates:
        plain = np.stack([column["v"] + deviate * column["sv"], column["a"], column["z"], column["t"]], axis=1)
        mean += stats.norm.pdf(deviate) * np.exp(of_closed_form(get_model("ddm"), plain, rt, choice))
    with np.errstate(divide="ignore"):
        return np.log(mean * (deviates[1] - deviates[0]))


def of_variability(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The mean density of ddm_sdv over a grid of start points and one of non-decision times."""
    out = np.empty(rt.shape)
    for i, row in enumerate(theta):
        value = dict(zip(model.params, row, strict=True))
        radius = value.get("sz", 0.0) / (2 * value["a"] if model.simulator == "full_ddm" else 1.0)
        starts, weights = uniform_grid(value["z"], radius)
        lags, spread = rt[i] - value["t"], value["st"]
        low, high = np.maximum(lags - spread, 0.0), np.maximum(lags + spread, 0.0)
        # Decision times that the non-decision times leave, closer together near 0.
        time = low[:, None] + (high - low)[:, None] * POINTS**2
        share = (high - low)[:, None] / (2 * spread) * (2 * POINTS * WEIGHTS)
        plain = np.array([[value["v"], value["a"], z, 0.0, value.get("sv", 0.0)] for z in starts])
        density = ddm.densities(get_model("ddm_sdv"), plain, np.full(len(plain), LONG), 0.0)
        side = np.broadcast_to(choice[i][:, None], time.shape).ravel()
        all_starts = (len(plain), 1)
        f = weights @ np.exp(density.log_density(np.tile(time.ravel(), all_starts), np.tile(side, all_starts)))
        f = (f.reshape(time.shape) * share).sum(axis=1)
        if radius:
            # Trials that start beyond a bound respond at once.
            beyond = np.where(choice[i] < 0, radius - value["z"], value["z"] + radius - 1.0).clip(0) / (2 * radius)
            f += beyond * (np.abs(lags) < spread) / (2 * spread)
        with np.errstate(divide="ignore"):
            out[i] = np.log(f)
    return out


def uniform_grid(middle: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Start points between the bounds, and their weights."""
    if not radius:
        return np.array([middle]), np.ones(1)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    low, high = max(middle - radius, 0.0), min(middle + radius, 1.0)
    return low + 0.5 * (high - low) * (nodes + 1), 0.5 * weights * (high - low) / (2 * radius)


def of_race(model: Model, theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Densities and survival functions of the accumulators, averaged over a grid of start points."""
    column = {name: theta[:, i, None, None] for i, name in enumerate(model.params)}
    t = rt[:, :, None] - column.get("t", 0.0)
    t = np.where(t > 0, t, np.nan)
    if model.simulator == "poisson_race":
        laws = [stats.gamma(column["k" + j], scale=1 / column["r" + j]) for j in "12"]
        f, s = [law.pdf(t)[..., 0] for law in laws], [law.sf(t)[..., 0] for law in laws]
    else:
        bound, start = (column["b"], column["A"]) if "b" in column else (column["a"], column["z"])
        fall = np.tan(column["theta"]) if "theta" in column else 0.0
        lowest = np.clip(fall * t, np.maximum(bound - start, 0.0), bound)
        f, s = [], []
        for j in range(len(model.choices)):
            v = column[f"v{j}"]
            # Start points further from the bound than this have not arrived.
            reach = (v + 1.0 + fall) * t if "lba" in model.simulator else v * t + 10 * np.sqrt(t)
            reach = np.clip(reach, lowest, bound)
            d = lowest + (reach - lowest) * POINTS
            weights = (reach - lowest) * WEIGHTS / start
            if model.simulator == "racing_diffusion_model":
                law = stats.invgauss(1 / (v * d), scale=d * d)
                density, survival = law.pdf(t), law.sf(t)
            else:
                speed = d / t - fall
                density = d / t**2 * (stats.norm.pdf(speed, v, 0.1) + stats.norm.pdf(-speed, v, 0.1))
                survival = stats.norm.cdf(speed, v, 0.1) - stats.norm.cdf(-speed, v, 0.1)
            f.append((weights * density).sum(axis=-1))
            s.append((weights * survival).sum(axis=-1) + ((bound - reach) / start)[..., 0])
    index = np.searchsorted(model.choices, choice)
    joint = [f[c] * math.prod(s[j] for j in range(len(s)) if j != c) for c in range(len(f))]
    with np.errstate(divide="ignore"):
        return np.log(np.nan_to_num(np.take_along_axis(np.stack(joint), index[None], axis=0)[0]))


def main() -> None:
    models = {name: get_model(name) for name in model_names()}
    # Choices without response times have probabilities by formula, and nothing to compare them with.
    exact = [name for name, m in models.items() if engines_of(m) != ["simulation"] and not softmax.covers(m)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=exact)
    parser.add_argument("--thetas", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| model | engine | mean | p99.9 | mass | not finite |\n|---|---|---|---|---|---|")
    for name in arguments.models:
        model = get_model(name)
        for engine in engines_of(model)[:-1]:
            a = measure(model, engine, arguments.thetas)
            print(f"| {name} | {engine} | {a.mean:.1e} | {a.high:.1e} | {a.mass:.1e} | {a.not_finite} |", flush=True)


if __name__ == "__main__":
    main()
