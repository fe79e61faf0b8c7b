"""Simulated trials: ssm-simulators' own, or walks of ours, with steps and corrections that fit the target."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from lanline.engines.closed_form import softmax
from lanline.engines.overshoot import OVERSHOOT, stable_overshoot
from lanline.engines.simulation import walks
from lanline.errors import UserError
from lanline.models import DEADLINE_SUFFIX, Model

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


def check_target(model: Model, target: str) -> None:
    """Raise UserError where the simulation engine cannot give labels for ``target``."""
    if target == "continuous" and model.simulator not in _WALKS | WITHOUT_STEPS | walks.SIMULATORS.keys():
        raise UserError(
            f"data.target: {model.name} has simulated labels only, and no correction for the time step is "
            f"known for its simulator {model.simulator}. Set data.target: euler for labels of the process "
            f"with the step data.delta_t."
        )


def step(model: Model, target: str, delta_t: float) -> float:
    """Step of the simulator for labels of ``target``, seconds: ``delta_t`` is that of the target ``euler``."""
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
        theta: (B, P) parameters in the order of ``model.params``.
        limit: (B,) largest response time, seconds.
        target: ``continuous`` or ``euler``.
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
        inwards = stable_overshoot(float(column["alpha"][0]), float(column["a"][0]), delta_t)
    registered = get_boundary_registry().get(model.boundary)

    def boundary(t: np.ndarray, **params: float) -> np.ndarray:
        bound = registered["fun"](t=t, **params)
        # The first value only places the start point.
        bound[1:] -= inwards
        return bound

    return {"boundary": boundary, "boundary_params": registered["params"]}


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
