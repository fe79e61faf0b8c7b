"""What networks that give probabilities (cpn, opn, gonogo) are judged against.

The reference is the probability of every category at random thetas: from the model's exact density by integration,
else as the share of fresh simulated trials. Beside it stand outcomes of further trials, which the reference had no part
in: a fault of the engine then shows as a calibration error instead of hiding behind itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanline import engines
from lanline.config import Data, Evaluation
from lanline.dataset.rows import probability_rows
from lanline.evaluation.trials import OMISSION, TRIALS_PER_THETA, ReferenceKind, simulate_trials
from lanline.models import Model
from lanline.networks.specification import NetworkSpec
from lanline.theta import float32_theta

NO_OUTCOME = -1
MOSTLY_OMITTED = 0.99  # from this probability of an omission on, a cpn is not judged at a theta
THETAS_AT_ONCE = 500  # whose densities are in memory together


@dataclass(frozen=True)
class ProbabilityReference:
    """Probabilities at T thetas, and what happened in n simulated trials at each.

    Attributes:
        spec: of the networks that are judged.
        kind: exact or simulation.
        theta: (T, P) parameters, uniform in the bounds.
        probability: (T, K) of each category, see `lanline.networks.heads`.
        standard_error: (T, K) of these; 0 if exact.
        outcome: (T, n) index of the category, or -1 for a trial that says nothing (a cpn's omissions).
    """

    spec: NetworkSpec
    kind: ReferenceKind
    theta: np.ndarray
    probability: np.ndarray
    standard_error: np.ndarray
    outcome: np.ndarray


def make_probability_reference(
    spec: NetworkSpec, model: Model, data: Data, settings: Evaluation
) -> ProbabilityReference:
    """Probabilities and simulated outcomes: the same for every network of this type and model in a run.

    Args:
        spec: of a network.
        model: its model with the bounds of the configuration.
        data: settings of the training data: target, simulation step and time limit.
        settings: number of trials and thetas, seed.
    """
    data = data.model_copy(update={"engine": "auto"})
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed))
    exact = engines.has_exact(model)
    n_thetas = math.ceil(settings.trials / TRIALS_PER_THETA) if exact else settings.mass_thetas
    drawn = float32_theta(model, n_thetas, rng)
    parts = [
        _reference_part(spec, model, part, engines.densities(model, part, data, rng))
        for part in np.array_split(drawn, math.ceil(n_thetas / THETAS_AT_ONCE))
    ]
    theta, probability = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    error = np.sqrt(probability * (1 - probability) / data.n_trajectories)
    return ProbabilityReference(
        spec=spec,
        kind="exact" if exact else "simulation",
        theta=theta,
        probability=probability,
        standard_error=np.zeros_like(error) if exact else error,
        outcome=_simulated_outcomes(spec, model, theta, math.ceil(settings.trials / n_thetas), data, rng),
    )


def _reference_part(
    spec: NetworkSpec, model: Model, theta: np.ndarray, density: engines.Densities
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the thetas (B, P) that count, and the probabilities of all categories there (B, K)."""
    labels = probability_rows(model, theta, density)[f"{spec.network_type}_labels"].astype(float)
    probability = labels if labels.ndim == 2 else np.stack([1 - labels, labels], axis=1)
    if spec.network_type != "cpn":
        return theta, probability
    responds = density.omission_probability() < MOSTLY_OMITTED
    return theta[responds], probability[responds]


def _simulated_outcomes(
    spec: NetworkSpec, model: Model, theta: np.ndarray, n: int, data: Data, rng: np.random.Generator
) -> np.ndarray:
    """(T, n) categories of fresh simulated trials."""
    rt, choice = simulate_trials(model, theta, n, data, rng)
    omitted = rt == OMISSION
    if spec.network_type == "opn":
        return omitted.astype(int)
    if spec.network_type == "gonogo":
        return (omitted | (choice != model.choices[-1])).astype(int)
    return np.where(omitted, NO_OUTCOME, np.searchsorted(model.choices, choice))
