"""Labels from simulated trials and a kernel density estimate.

This engine has every model of the registry that has response times. Its labels carry the sampling noise of
`n_trajectories` trials and the smoothing of the estimate. What they are labels of depends on the target:

- ``euler``: the process that ssm-simulators' simulator really runs, with its step delta_t.
- ``continuous``: the process in continuous time, with steps that `step` chooses such that their error stays below
  the sampling noise of 20,000 trials, whatever their number. Accumulators and two-level choices have simulators of
  our own (`walks`). The others are ssm-simulators', run with coarse steps and a correction: a walk
  with step delta_t overshoots its bounds by 0.5826 sqrt(delta_t) on average, as if they lay that much further out
  (Siegmund 1979; Broadie, Glasserman & Kou 1997). Bounds that lie that much further in take the error from order
  sqrt(delta_t) to order delta_t.

Simulated trials that reach the time limit are omissions. They count in the denominator, so the densities of
all choices together have the mass 1 - P(omission), and are never part of the estimate. ssm-simulators itself
reports them in two ways (as -999 with a deadline, as responses just after max_t without); here every
simulation runs with a deadline.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from lanline.engines.closed_form import softmax
from lanline.engines.simulation import kde
from lanline.errors import UserError
from lanline.models import DEADLINE_SUFFIX, Model

# -zeta(1/2) / sqrt(2 pi): mean overshoot of a Gaussian random walk with unit variance.
OVERSHOOT = 0.5825971579390107
# The simulators write one step past the time limit. Room for it keeps that write inside their arrays.
SPARE_STEPS = 20

# Corrected walks take steps of at most 5 ms, from starts close to a bound of the distance squared over 20. That keeps
# the error of distribution functions below 0.006; the sampling noise of 20,000 trials is 0.0096 (95 %).
COARSE_STEP, STEPS_PER_SQUARED_DISTANCE = 5e-3, 20.0

# Simulators whose particles have unit Gaussian noise until they reach the boundary function.
_BOUNDED = {
    "ddm",
    "ddm_flexbound",
    "ddm_flex",
    "ddm_flex_leak",
    "ddm_flex_leak2",
    "ddm_sdv",
    "full_ddm",
    "full_ddm_rv",
    "ornstein_uhlenbeck",
}
_STABLE = "levy_flexbound"  # the same with symmetric alpha-stable noise of unit scale
# The bound is a parameter and the start lies in absolute units: that parameter, and by how many steps these report
# a response too early (one: the start of the step in which a particle arrives).
_BOUND_PARAMETER = {"racing_diffusion_model": ("b", 1), "addm": ("a", 0)}
_FROM_ZERO = "ddm"  # ddm_legacy: bounds at 0 and a, and no function of time for them
_WALKS = _BOUNDED | {_STABLE, *_BOUND_PARAMETER}
# Their times are drawn, and those of softmax models do not matter.
WITHOUT_STEPS = {"lba_vanilla", "lba_angle", "poisson_race", "rlwm_lba_race", "rlwm_lba_pw_v1", softmax.SIMULATOR}
# ssm-simulators and numpy keep a random state for all threads of a process. Our own walks do not.
_RANDOM_STATE = threading.Lock()


@dataclass(frozen=True)
class Simulated:
    """Kernel density estimates for B thetas; see `lanline.engines.Densities`.

    Attributes:
        rt: (B, n) simulated response times, seconds; nan for omissions.
        choice: (B, n) simulated choices; nan for omissions.
        limit: (B,) time limit of a response.
        choices: the values of the choices.
        max_t: the workflow's time limit, for choices that no trial made.
        estimates: (B, C) one estimate per theta and choice, None where no trial made it.
    """

    rt: np.ndarray
    choice: np.ndarray
    limit: np.ndarray
    choices: tuple[int, ...]
    max_t: float
    estimates: list[list[kde.LogRtDensity | None]]

    def choice_probability(self) -> np.ndarray:
        return np.stack([(self.choice == value).mean(axis=1) for value in self.choices], axis=1)

    def omission_probability(self) -> np.ndarray:
        return np.isnan(self.rt).mean(axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws from the estimate: a simulated response, moved by a draw from its kernel."""
        n_theta = len(self.rt)
        rt, choice = np.full((2, n_theta, n), np.nan)
        uniform, noise = rng.random((n_theta, n)), rng.standard_normal((n_theta, n))
        for b in range(n_theta):
            responses = np.flatnonzero(~np.isnan(self.rt[b]))
            if len(responses) == 0:
                continue
            drawn = responses[(uniform[b] * len(responses)).astype(int)]
            choice[b] = self.choice[b, drawn]
            bandwidth = np.array([estimate.bandwidth if estimate else 0.0 for estimate in self.estimates[b]])
            moved = self.rt[b, drawn] * np.exp(bandwidth[self._index(choice[b])] * noise[b])
            # A kernel may reach past the time limit, where there are no responses.
            rt[b] = np.where(moved < self.limit[b], moved, self.rt[b, drawn])
        return rt, choice

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """Log of the estimate. A choice that no trial made has the density 1 / (trials * max_t), as in
        LogKDE."""
        out = np.full(rt.shape, -np.inf)
        index = self._index(choice)
        inside = (rt > 0) & (rt < self.limit[:, None])
        n_trials = self.rt.shape[1]
        for b, c in np.ndindex(len(rt), len(self.choices)):
            rows = inside[b] & (index[b] == c)
            estimate = self.estimates[b][c]
            if estimate is None:
                out[b, rows] = -math.log(n_trials * self.max_t)
            else:
                share = np.count_nonzero(self.choice[b] == self.choices[c]) / n_trials
                out[b, rows] = estimate.log_density(rt[b, rows]) + math.log(share)
        return out

    def _index(self, choice: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.asarray(self.choices), choice)


def densities(
    model: Model,
    theta: np.ndarray,
    limit: np.ndarray,
    target: str,
    delta_t: float,
    n_trajectories: int,
    max_t: float,
    rng: np.random.Generator,
) -> Simulated:
    """Estimated densities at each row of ``theta``.

    Args:
        model: any model of the registry.
        theta: (B, P) parameters in the order of ``model.params``.
        limit: (B,) largest response time, seconds.
        target: ``continuous`` or ``euler``, see above.
        delta_t: step of the target ``euler``, seconds.
        n_trajectories: simulated trials per theta.
        max_t: the workflow's time limit, seconds.
        rng: source of the simulator's seed.

    Raises:
        UserError: the target is ``continuous`` and no correction is known for this model's simulator.
    """
    seed = int(rng.integers(2**31))
    rt, choice = simulate(model, theta, limit, target, step(model, target, delta_t), n_trajectories, seed)
    estimates = [
        [kde.fit(rt[b, chosen]) if (chosen := choice[b] == value).any() else None for value in model.choices]
        for b in range(len(theta))
    ]
    return Simulated(rt, choice, limit, model.choices, max_t, estimates)


def check_target(model: Model, target: str) -> None:
    """Raise UserError where the simulation engine cannot give labels for ``target``."""
    from lanline.engines.simulation import walks

    if target == "continuous" and model.simulator not in _WALKS | WITHOUT_STEPS | walks.SIMULATORS.keys():
        raise UserError(
            f"data.target: {model.name} has simulated labels only, and no correction for the time step is "
            f"known for its simulator {model.simulator}. Set data.target: euler for labels of the process "
            f"with the step data.delta_t."
        )


def step(model: Model, target: str, delta_t: float) -> float:
    """Step of the simulator for labels of ``target``, seconds: ``delta_t`` is that of the target ``euler``."""
    from lanline.engines.simulation import walks

    if target == "euler":
        return delta_t
    if model.simulator not in walks.SIMULATORS:
        return COARSE_STEP
    return walks.LARGEST_STEP.get(model.simulator, walks.LARGEST_STEP_OF_OTHERS)


def simulate(
    model: Model,
    theta: np.ndarray,
    limit: np.ndarray,
    target: str,
    delta_t: float,
    n_trajectories: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate ``n_trajectories`` trials at each row of ``theta``.

    In several threads, those with simulators of ssm-simulators wait for one another: it has one random state for all.

    Args:
        model: any model of the registry.
        theta: (B, P), as in `densities`, like ``limit`` and ``target``.
        delta_t: (largest) step of the simulator, seconds; `step` has the one that labels are made with.
        n_trajectories: trials per theta.
        seed: of the simulator.

    Returns:
        Response times and choices, (B, n_trajectories) each, nan for omissions. Softmax models have the time 0.
    """
    check_target(model, target)
    corrected = target == "continuous" and model.simulator in _WALKS
    # levy's simulator uses up the noise that it has drawn for one theta at the next, whatever its alpha.
    if not corrected and model.simulator != _STABLE:
        return _simulate_together(model, theta, limit, target, delta_t, n_trajectories, seed)
    steps = np.minimum(delta_t, _small_steps(model, theta)) if corrected else np.full(len(theta), delta_t)
    seeds = np.random.SeedSequence(seed).generate_state(len(theta)) >> 1
    alone = [
        _simulate_together(model, theta[[i]], limit[[i]], target, float(steps[i]), n_trajectories, int(seeds[i]))
        for i in range(len(theta))
    ]
    return np.concatenate([rt for rt, _ in alone]), np.concatenate([choice for _, choice in alone])


def _small_steps(model: Model, theta: np.ndarray) -> np.ndarray:
    """(B,) steps that are small compared with the way from the start to the nearer bound, seconds."""
    column = dict(zip(model.params, theta.T, strict=True))
    if "z" not in column:  # racing_diffusion_3 and addm start in absolute units
        return np.full(len(theta), COARSE_STEP)
    width = column["a"] * (1 if model.simulator == _FROM_ZERO else 2)
    distance = width * np.minimum(column["z"], 1 - column["z"])
    if model.simulator == _STABLE:  # its noise has the variance 2 for alpha = 2
        return distance ** column["alpha"] / (2 * STEPS_PER_SQUARED_DISTANCE)
    return distance**2 / STEPS_PER_SQUARED_DISTANCE


def _simulate_together(
    model: Model,
    theta: np.ndarray,
    limit: np.ndarray,
    target: str,
    delta_t: float,
    n_trajectories: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """`simulate` in one call of the simulator."""
    from ssms.basic_simulators.simulator_class import Simulator

    column = {name: theta[:, i].astype(np.float32) for i, name in enumerate(model.params)}
    overrides = _for_continuous_time(model, column, delta_t) if target == "continuous" else {}
    # Walks that run out of time end after the limit, never on it, and are cut off below.
    column["deadline"] = (limit + 2 * delta_t).astype(np.float32)
    simulator = Simulator(model.name.removesuffix(DEADLINE_SUFFIX) + DEADLINE_SUFFIX, **overrides)
    with nullcontext() if "simulator" in overrides else _random_state(seed):
        done = simulator.simulate(
            column,
            n_samples=n_trajectories,
            delta_t=delta_t,
            max_t=float(limit.max()) + SPARE_STEPS * delta_t,
            random_state=seed,
            return_option="minimal",
        )
    rt = done["rts"].reshape(n_trajectories, len(theta)).T.astype(np.float64)
    choice = done["choices"].reshape(n_trajectories, len(theta)).T.astype(np.float64)
    if softmax.covers(model):
        return np.zeros_like(choice), choice  # ssm-simulators' placeholder is -1
    # A walk that stops exactly on its start point has the sign 0 in two-choice models: no response either.
    omitted = (rt <= 0) | (rt >= limit[:, None]) | ~np.isin(choice, model.choices)
    if "A" in column and model.simulator in _BOUND_PARAMETER:
        # A particle that starts above its bound has no decision time: an omission, as in `closed_form.races`. The
        # simulator spreads it over half a step, together with those that arrive in the first one.
        beyond = column["A"] > column[_BOUND_PARAMETER[model.simulator][0]]
        omitted |= beyond[:, None] & (rt <= (column["t"] + 0.5 * delta_t)[:, None])
    return np.where(omitted, np.nan, rt), np.where(omitted, np.nan, choice)


def _for_continuous_time(model: Model, column: dict[str, np.ndarray], delta_t: float) -> dict[str, Any]:
    """What to override in ssm-simulators' configuration of a model so that steps leave next to no bias.

    Either the simulator, or the bounds: they move inwards by the mean overshoot of a step, start points stay where
    they are. Changes ``column`` in place.
    """
    from ssms.config import get_boundary_registry

    from lanline.engines.simulation import walks

    if model.simulator in WITHOUT_STEPS:
        return {}
    if model.simulator in walks.SIMULATORS:
        return {"simulator": walks.SIMULATORS[model.simulator]}
    inwards = OVERSHOOT * math.sqrt(delta_t)
    if model.simulator in _BOUND_PARAMETER:
        bound, early = _BOUND_PARAMETER[model.simulator]
        column[bound] -= np.float32(inwards)
        column["t"] += np.float32(early * delta_t)
        return {}
    if model.simulator == _FROM_ZERO:
        width = column["a"] - np.float32(2 * inwards)
        column["z"] = np.clip((column["z"] * column["a"] - np.float32(inwards)) / width, 0, 1)
        column["a"] = width
        return {}
    if model.simulator == _STABLE:
        inwards = _stable_overshoot(float(column["alpha"][0]), float(column["a"][0]), delta_t)
    registered = get_boundary_registry().get(model.boundary)

    def boundary(t: np.ndarray, **params: float) -> np.ndarray:
        bound = registered["fun"](t=t, **params)
        # The first value only places the start point.
        bound[1:] -= inwards
        return bound

    return {"boundary": boundary, "boundary_params": registered["params"]}


def _stable_overshoot(alpha: float, a: float, delta_t: float) -> float:
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


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Have ssm-simulators' random state alone, and numpy's global one, which a few models draw from, with this seed."""
    with _RANDOM_STATE:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
