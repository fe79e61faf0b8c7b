"""What a network is judged against: simulated trials and whole densities, with the reference's values at them.

The trials are not drawn by the engine that made the training data (`lanline.evaluation.trials`), and nothing here
shares random numbers with the training data.

Where a model has an exact density, that is the reference, at a new theta every few trials. Elsewhere the reference
is a kernel density estimate from a fresh simulation, which costs seconds a theta, so there are fewer thetas with more
trials each; the difference of two independent halves of the simulation is the reference's own error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lanline import engines
from lanline.config import Data, Evaluation
from lanline.errors import UserError
from lanline.evaluation.trials import OMISSION, TRIALS_PER_THETA, ReferenceKind, simulate_trials
from lanline.models import Model
from lanline.theta import float32_theta

NEW_THETAS = 500  # that trials are simulated at together, with an exact reference
MOST_PER_COUNTED = 10  # simulated trials for each that counts, before this is called a mistake
GRID_UNIFORM = 800  # grid points between 0 and max_t ...
GRID_SAMPLED = 400  # ... and where the reference has its responses, however narrow its peak
BEFORE_FIRST = np.geomspace(1e-5, 0.5, 100)  # ... and, for a steep onset, so many seconds before the first of them


@dataclass(frozen=True)
class Trials:
    """N simulated trials that count, and the reference's log-density at each.

    Attributes:
        theta: (N, P) parameters, uniform in the bounds.
        cluster: (N,) a number for each different theta.
        rt: (N,) response times, seconds.
        choice: (N,) responses.
        log_density: (N,) log-density of the reference, nats, above min_log_density.
        halves_difference: (N,) what the reference's two independent halves differ by, nats; 0 for an exact one.
        below_min: further simulated trials, where the reference is below min_log_density.
        omitted: further simulated trials without a response before max_t.
    """

    theta: np.ndarray
    cluster: np.ndarray
    rt: np.ndarray
    choice: np.ndarray
    log_density: np.ndarray
    halves_difference: np.ndarray
    below_min: int
    omitted: int


@dataclass(frozen=True)
class Curves:
    """Whole densities of the reference for T thetas.

    Attributes:
        theta: (T, P) parameters, uniform in the bounds.
        rt: (T, N) increasing response times in [0, max_t], seconds: a uniform grid joined by draws from the
            reference, so that narrow peaks are resolved.
        choices: (C,) responses.
        density: (T, C, N) density of (rt, choice), 1/s.
        omission: (T,) probability of no response before max_t.
    """

    theta: np.ndarray
    rt: np.ndarray
    choices: np.ndarray
    density: np.ndarray
    omission: np.ndarray


@dataclass(frozen=True)
class Reference:
    """Trials and curves to judge a network of ``model`` at, and where their values come from."""

    model: Model
    kind: ReferenceKind
    trials: Trials
    curves: Curves


def make_reference(model: Model, data: Data, settings: Evaluation) -> Reference:
    """Simulate trials and compute the reference's values at them: the same for every network of a run.

    Args:
        model: the model with its bounds.
        data: settings of the training data: target, simulation step and time limit.
        settings: number of trials and thetas, seed.

    Raises:
        UserError: too few trials have a reference above min_log_density.
    """
    data = data.model_copy(update={"engine": "auto"})
    trials_rng, curves_rng = (np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.seed).spawn(2))
    exact = engines.has_exact(model)
    theta = float32_theta(model, settings.mass_thetas, curves_rng)
    parts = [engines.densities(model, theta, data, rng) for rng in curves_rng.spawn(1 if exact else 2)]
    if exact:
        blocks = _exact_blocks(model, data, settings, trials_rng)
    else:
        blocks = _simulated_blocks(model, data, settings, theta, parts, trials_rng)
    return Reference(
        model=model,
        kind="exact" if exact else "simulation",
        trials=_gather(blocks, model, settings),
        curves=_curves(model, data, theta, parts, curves_rng),
    )


def _gather(blocks: Iterator[Trials], model: Model, settings: Evaluation) -> Trials:
    """The first ``settings.trials`` trials that count."""
    taken: list[Trials] = []
    counted = simulated = omitted = 0
    while counted < settings.trials:
        block = next(blocks)
        taken.append(block)
        counted += len(block.rt)
        simulated += len(block.rt) + block.below_min + block.omitted
        omitted += block.omitted
        if counted < simulated / MOST_PER_COUNTED and simulated > settings.trials:
            if omitted > simulated / 2:
                raise UserError(
                    f"data.max_t: {omitted:,} of {simulated:,} simulated trials of {model.name} have no response "
                    "before it (or before the model's deadline): too many omissions to evaluate a network"
                )
            raise UserError(
                f"evaluation.min_log_density: only {counted:,} of {simulated:,} simulated trials of {model.name} "
                f"have a response and a reference log-density above {settings.min_log_density:g}"
            )
    arrays = ("theta", "cluster", "rt", "choice", "log_density", "halves_difference")
    joined = {name: np.concatenate([getattr(block, name) for block in taken]) for name in arrays}
    return Trials(
        **{name: array[: settings.trials] for name, array in joined.items()},
        below_min=sum(block.below_min for block in taken),
        omitted=sum(block.omitted for block in taken),
    )


def _exact_blocks(model: Model, data: Data, settings: Evaluation, rng: np.random.Generator) -> Iterator[Trials]:
    """A few trials at each of some new thetas, again and again."""
    for block in itertools.count():
        theta = float32_theta(model, NEW_THETAS, rng)
        rt, choice = simulate_trials(model, theta, TRIALS_PER_THETA, data, rng)
        log_density = engines.densities(model, theta, data, rng).log_density(rt, choice)
        difference = np.zeros_like(log_density)
        yield _trials(theta, block * NEW_THETAS, rt, choice, log_density, difference, settings)


def _simulated_blocks(
    model: Model,
    data: Data,
    settings: Evaluation,
    theta: np.ndarray,
    halves: list[engines.Densities],
    rng: np.random.Generator,
) -> Iterator[Trials]:
    """More and more trials at the same thetas; they are not among those that the halves were estimated from."""
    per_theta = math.ceil(settings.trials / len(theta))
    while True:
        rt, choice = simulate_trials(model, theta, per_theta, data, rng)
        first, second = (np.maximum(half.log_density(rt, choice), data.floor) for half in halves)
        log_density = np.logaddexp(first, second) - np.log(2)
        yield _trials(theta, 0, rt, choice, log_density, first - second, settings)


def _trials(
    theta: np.ndarray,
    first_cluster: int,
    rt: np.ndarray,
    choice: np.ndarray,
    log_density: np.ndarray,
    difference: np.ndarray,
    settings: Evaluation,
) -> Trials:
    """Those trials that count, from (B, P) thetas and arrays (B, n)."""
    responded = rt != OMISSION
    counts = responded & (log_density > settings.min_log_density)
    # Trial by trial over all thetas, so that a cut takes from all of them.
    trial, index = np.nonzero(counts.T)
    return Trials(
        theta=theta[index],
        cluster=first_cluster + index,
        rt=rt[index, trial],
        choice=choice[index, trial],
        log_density=log_density[index, trial],
        halves_difference=difference[index, trial],
        below_min=int(np.count_nonzero(responded & ~counts)),
        omitted=int(np.count_nonzero(~responded)),
    )


def _curves(
    model: Model, data: Data, theta: np.ndarray, parts: list[engines.Densities], rng: np.random.Generator
) -> Curves:
    """The mean of ``parts`` on a grid of response times."""
    sampled, _ = parts[0].sample(GRID_SAMPLED, rng)
    sampled = np.fmin(sampled, data.max_t)  # not minimum: where everything is omitted there are only nan
    onset = np.maximum(sampled.min(axis=1, keepdims=True) - BEFORE_FIRST, 0)
    # Softmax models have probabilities, the same at all times: over one second their integral is the sum.
    end = data.max_t if engines.has_response_times(model) else 1.0
    uniform = np.broadcast_to(np.linspace(0, end, GRID_UNIFORM), (len(theta), GRID_UNIFORM))
    rt = np.sort(np.concatenate([uniform, onset, sampled], axis=1)).astype(np.float32).astype(float)
    density = [
        np.mean([np.exp(part.log_density(rt, np.full_like(rt, choice))) for part in parts], axis=0)
        for choice in model.choices
    ]
    return Curves(
        theta=theta,
        rt=rt,
        choices=np.asarray(model.choices),
        density=np.stack(density, axis=1),
        omission=np.mean([part.omission_probability() for part in parts], axis=0),
    )
