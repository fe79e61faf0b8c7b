"""Simulators in continuous time for the models whose simulation costs seconds: races, lca and two-level choices.

They take the arguments that ssm-simulators passes to its compiled simulators (``cssm``) and give back the same
arrays, so parameters, start points, bounds and noise are its own. What differs is time. An Euler walk looks at its
bounds at the ends of steps only; here a step from x to y is a Brownian bridge between these two, about which
everything that matters is known exactly:

- the bridge crosses a straight bound at distances d and e before and after the step with the probability
  exp(-2 d e / variance), and given that it does, when: t / (h - t) is inverse Gaussian with mean d / e and
  shape d^2 / variance (Brownian motion from d to -e, by reflection, with time t / (h - t));
- its minimum can be drawn, and a particle that a floor holds up is pushed by as much as the minimum lies below the
  floor (Skorokhod's equation).

So drift and noise that are constant during a step and straight bounds are followed without error at any step; only
a path that meets two bounds during one step is not. Leak and inhibition are followed to the second order (Kloeden &
Platen 1992, section 14.2). Steps (`time_grid`) shrink with the squared distance of the bounds and where they bend.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lanline.engines.compiled import njit

# The standard deviation of a step is at most 1 / 5 of the bound.
STEPS_PER_SQUARED_BOUND = 25.0
FINE_STEP = 1e-3  # bounds are tabulated at multiples of this, seconds; no step is much shorter
# Largest steps at which distribution functions stay within 0.003 of those with far smaller steps, seconds.
LARGEST_STEP = {"lca": 0.02}
LARGEST_STEP_OF_OTHERS = 0.05
BEND = 2e-3  # largest distance of the bound from its chord during a step, relative to the bound at the start
OMISSION = -999.0  # rt of a trial without a response, as in ssm-simulators
NEVER = 18.0  # events with a probability below exp(-NEVER) are left out


def time_grid(
    boundary: Callable[..., np.ndarray], params: dict[str, Any], limit: float, largest_step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of steps and the bound there.

    Args:
        boundary: bound as a function of an array ``t`` and ``params``.
        params: of the bound, one number each.
        limit: seconds that a walk can take.
        largest_step: seconds.

    Returns:
        times (K,) from 0 to at least the limit, or to where the bound has come down to 0; bounds (K,).
    """
    fine = FINE_STEP * np.arange(math.ceil(max(limit, FINE_STEP) / FINE_STEP) + 3)
    bound = np.asarray(boundary(t=fine, **params), dtype=np.float64)
    collapsed = np.flatnonzero(bound <= 0)
    if len(collapsed):
        fine, bound = fine[: collapsed[0] + 1], bound[: collapsed[0] + 1]
    if len(fine) < 3:
        return fine, bound
    bend = np.abs(np.diff(bound, 2)) / FINE_STEP**2
    density = np.maximum(STEPS_PER_SQUARED_BOUND / np.maximum(bound, 1e-9) ** 2, 1 / largest_step)[:-1]
    density[1:] = np.maximum(density[1:], np.sqrt(bend / (8 * BEND * bound[0])))
    density[0] = max(density[0], density[1])
    steps = np.concatenate([[0.0], np.cumsum(np.minimum(density, 1 / FINE_STEP) * FINE_STEP)])
    times = np.interp(np.linspace(0, steps[-1], math.ceil(steps[-1]) + 1), steps, fine)
    return times, np.interp(times, fine, bound)


def _lca(**given: Any) -> dict[str, Any]:
    """Leaky competing accumulators (Usher & McClelland 2001)."""
    v, z, s = (np.asarray(given[name], dtype=float) for name in ("v", "z", "s"))

    def walk(k: int, times: np.ndarray, bounds: np.ndarray, *rest: Any) -> None:
        leak, inhibition = float(given["g"][k, 0]), float(given["b"][k, 0])
        _accumulate(v[k], z[k] * bounds[0], leak, inhibition, s[k], times, bounds, *rest)

    return _simulate(walk, **given)


def _race(**given: Any) -> dict[str, Any]:
    """Accumulators that do not know of each other."""
    alone = np.zeros((given["n_trials"], 1))
    return _lca(**given, g=alone, b=alone)


def _two_level(waits: bool, undecided: Callable[[dict[str, Any]], tuple[Any, ...]]) -> Callable[..., dict[str, Any]]:
    """The simulator of a diffusion on a high level and one on the low level.

    Args:
        waits: whether the low level waits for the high one.
        undecided: from the given parameters, what the low level does meanwhile: p0, p1, q0, q1 and leak of
            `_choose_twice`, one number each or one for each theta.
    """

    def simulator(**given: Any) -> dict[str, Any]:
        drift = np.stack([given[name] for name in ("vh", "vl1", "vl2")], axis=1).astype(float)
        start = 2 * np.stack([given[name] for name in ("zh", "zl1", "zl2")], axis=1).astype(float) - 1
        meanwhile = np.stack(np.broadcast_arrays(*undecided(given), given["t"])[:-1], axis=1).astype(float)

        def walk(k: int, *rest: Any) -> None:
            _choose_twice(drift[k], start[k], float(given["s"][k]), waits, meanwhile[k], *rest)

        return _simulate(walk, **given)

    return simulator


def _as_usual(given: dict[str, Any]) -> tuple[Any, ...]:
    return 1, 0, 1, 0, 0


def _tradeoff(given: dict[str, Any]) -> tuple[Any, ...]:
    constant, slope = (1 - given["d"]) / (2 - given["d"]), given["d"] / (2 - given["d"])
    return constant, slope, constant, slope, 0


# By the name of the compiled simulator that they stand in for; `delta_t` is their largest step.
SIMULATORS = {
    "race_model": _race,
    "lca": _lca,
    "ddm_flexbound_seq2": _two_level(True, _as_usual),
    "ddm_flexbound_par2": _two_level(False, _as_usual),
    "ddm_flexbound_mic2_ornstein": _two_level(
        False, lambda given: (0, 1 - given["d"], given["s_pre_high_level_choice"], 0, given["g"])
    ),
    "ddm_flexbound_mic2_multinoise": _two_level(False, lambda given: (0, 1 - given["d"], 0, 1, 0)),
    "ddm_flexbound_tradeoff": _two_level(False, _tradeoff),
}


def _simulate(
    walk: Callable[..., None],
    *,
    t: np.ndarray,
    deadline: np.ndarray,
    boundary_fun: Callable[..., np.ndarray],
    boundary_params: dict[str, np.ndarray],
    delta_t: float,
    n_samples: int,
    n_trials: int,
    random_state: int,
    **_: Any,
) -> dict[str, Any]:
    """Let ``walk`` fill in the trials of one theta after the other; what ssm-simulators expects of a simulator."""
    rng = np.random.Generator(np.random.SFC64(random_state))
    rt, choice = np.full((2, n_trials, n_samples), np.nan)
    onset = np.asarray(t, dtype=float).ravel()
    for k in range(n_trials):
        params = {name: np.ravel(values)[k] for name, values in boundary_params.items()}
        limit = float(deadline[k]) - onset[k]
        times, bounds = time_grid(boundary_fun, params, limit, delta_t)
        walk(k, times, bounds, limit, rng, rt[k], choice[k])
    rt = np.where(np.isnan(rt), OMISSION, rt + onset[:, None])
    return {"rts": rt.T[:, :, None], "choices": np.nan_to_num(choice).T[:, :, None], "metadata": {}}


@njit(cache=True, nogil=True)
def _crossing(before, after, variance, rng):
    """When a bridge crosses a bound, as a share of the step; 2 if it does not.

    Args:
        before: distance from the bound at the start of the step, positive on this side of it.
        after: the same at the end.
        variance: of the noise of the step.
        rng: source of the draws.
    """
    if before <= 0.0:
        return 0.0
    if after > 0.0:
        exponent = 2.0 * before * after
        if exponent > NEVER * variance or rng.random() >= math.exp(-exponent / variance):
            return 2.0
    # Inverse Gaussian (Michael, Schucany & Haas 1976), in a form that stays exact for large means.
    mean = before / max(abs(after), 1e-300)
    w = 0.5 * mean * rng.standard_normal() ** 2 * variance / before**2
    share = mean / (1.0 + w + math.sqrt(w * (2.0 + w)))
    if rng.random() * (mean + share) > mean:
        share = mean * (mean / share)
    return share / (1.0 + share) if share < 1e15 else 1.0


@njit(cache=True, nogil=True)
def _accumulate(v, start, leak, inhibition, sigma, times, bounds, limit, rng, rt, choice):
    """Trials of n accumulators, dx_i = (v_i - leak x_i - inhibition sum_j!=i x_j) dt + sigma_i dW, x_i >= 0."""
    n = len(v)
    x, moved = np.empty(n), np.empty(n)
    steps = np.diff(times)
    roots = np.sqrt(steps)
    own = leak - inhibition
    for trial in range(len(rt)):
        x[:] = start
        for k in range(len(steps)):
            if times[k] >= limit:
                break
            h = steps[k]
            total, total_moved = 0.0, 0.0
            for i in range(n):
                total += x[i]
            for i in range(n):
                drift = v[i] - own * x[i] - inhibition * total
                moved[i] = drift * h + sigma[i] * roots[k] * rng.standard_normal()
                total_moved += moved[i]
            first, winner = 2.0, -1
            for i in range(n):
                variance = sigma[i] * sigma[i] * h
                y = x[i] + moved[i] - 0.5 * h * (own * moved[i] + inhibition * total_moved)
                if 2.0 * x[i] * y < NEVER * variance:
                    spread = (y - x[i]) ** 2 - 2.0 * variance * math.log(1.0 - rng.random())
                    lowest = 0.5 * (x[i] + y - math.sqrt(spread))
                    if lowest < 0.0:
                        y -= lowest
                share = _crossing(bounds[k] - x[i], bounds[k + 1] - y, variance, rng)
                if share < first:
                    first, winner = share, i
                x[i] = y
            if winner >= 0:
                rt[trial], choice[trial] = times[k] + first * h, winner
                break


@njit(cache=True, nogil=True)
def _exit(y, after, b, b_after, variance, rng):
    """When and on which side (-1, 1) a step leaves the space between two bounds; (2, 0) if it does not."""
    upper = _crossing(b - y, b_after - after, variance, rng)
    lower = _crossing(b + y, b_after + after, variance, rng)
    if upper == 2.0 and lower == 2.0:
        return 2.0, 0
    return (upper, 1) if upper < lower else (lower, -1)


@njit(cache=True, nogil=True)
def _choose_twice(drift, start, sigma, waits, meanwhile, times, bounds, limit, rng, rt, choice):
    """Trials of a diffusion on a high level and one on the low level that its outcome selects.

    The low level starts with the high one, or waits for it. While the high level is undecided, the low level's
    drift is (p0 + p1 u) v - leak y and its noise (q0 + q1 u) sigma, where u is how far the high level has gone
    from the other bound to the one that it will reach, between 0 and 1; afterwards they are v and sigma. The
    response comes when both have reached their bounds.

    Args:
        drift: of the high level, the low level after the lower and after the upper choice.
        start: of the same, relative to the bound (-1 to 1).
        sigma: noise.
        waits: whether the low level waits.
        meanwhile: p0, p1, q0, q1, leak.
        times: ends of the steps; bounds: there; limit: seconds.
        rng, rt, choice: source of the draws, and what is filled in.
    """
    p0, p1, q0, q1, leak = meanwhile
    n_steps = len(times) - 1
    trace = np.empty(n_steps + 1)
    for trial in range(len(rt)):
        # The high level.
        y, decided, side, k = start[0] * bounds[0], math.inf, 0, 0
        while k < n_steps and times[k] < limit:
            trace[k] = y
            h = times[k + 1] - times[k]
            after = y + drift[0] * h + sigma * math.sqrt(h) * rng.standard_normal()
            share, side = _exit(y, after, bounds[k], bounds[k + 1], sigma * sigma * h, rng)
            if side != 0:
                decided = times[k] + share * h
                trace[k + 1] = after
                break
            y = after
            k += 1
        if side == 0 or decided >= limit:
            continue
        # The low level. A step ends where the grid or the high level does.
        level = 1 if side < 0 else 2
        v = drift[level]
        now, b = 0.0, bounds[0]
        if waits:
            now = decided
            b = bounds[k] + (bounds[k + 1] - bounds[k]) * (now - times[k]) / (times[k + 1] - times[k])
        else:
            k = 0
        y = start[level] * b
        low_side = 0
        while k < n_steps and now < limit:
            end = times[k + 1]
            if now < decided <= end:
                end = decided
            h = end - now
            b_after = bounds[k] + (bounds[k + 1] - bounds[k]) * (end - times[k]) / (times[k + 1] - times[k])
            move, noise, pull = v, sigma, 0.0
            if now < decided:
                u = 0.5 * (_progress(trace[k], bounds[k], side) + 1.0)
                if end < decided:
                    u = 0.5 * (_progress(trace[k], bounds[k], side) + _progress(trace[k + 1], bounds[k + 1], side))
                move, noise, pull = (p0 + p1 * u) * v, (q0 + q1 * u) * sigma, leak
            step = (move - pull * y) * h + noise * math.sqrt(h) * rng.standard_normal()
            after = y + step * (1.0 - 0.5 * pull * h)
            share, low_side = _exit(y, after, b, b_after, noise * noise * h, rng)
            if low_side != 0:
                now += share * h
                break
            y, b, now = after, b_after, end
            if end == times[k + 1]:
                k += 1
        if low_side != 0 and now < limit:
            rt[trial] = max(now, decided)
            choice[trial] = (2 if side > 0 else 0) + (1 if low_side > 0 else 0)


@njit(cache=True, nogil=True)
def _progress(y, b, side):
    """How far y has come from the bound opposite of ``side`` to the one on it."""
    return min(max(0.5 * (b + side * y) / b, 0.0), 1.0)
