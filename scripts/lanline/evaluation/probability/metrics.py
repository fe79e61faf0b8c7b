"""Judging networks that give probabilities: cpn, opn, gonogo.

The reference gives the probability of every category at random thetas: from the model's exact density by integration,
else as the share of fresh simulated trials. Beside it stand outcomes of further trials from ssm-simulators' own
simulators, which the reference had no part in: a fault of the engine then shows as a calibration error instead of
hiding behind itself.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from lanline import engines
from lanline.config import Data, Evaluation
from lanline.dataset.rows import probability_rows, sample_theta
from lanline.engines.simulation.engine import simulate, step
from lanline.errors import UserError
from lanline.evaluation.exported import LogLikelihood
from lanline.evaluation.likelihood.metrics import clustered_standard_error
from lanline.evaluation.likelihood.reference import BLOCK_THETAS, TRIALS_PER_THETA, ReferenceKind
from lanline.models import Model
from lanline.networks.specification import NetworkSpec

NO_OUTCOME = -1
N_BINS = 20  # of the calibration
MOSTLY_OMITTED = 0.99  # from this probability of an omission on, a cpn is not judged at a theta


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


@dataclass(frozen=True)
class ProbabilityMetrics:
    """Errors of a network that gives probabilities. Those of log-probabilities are in nats.

    Attributes:
        reference: exact (a density that was integrated), or simulation (shares of simulated trials).
        thetas: how many parameter vectors.
        trials: simulated trials that the errors in log-probability are averaged over: those whose outcome has a
            log-probability above min_log_density.
        mae: mean absolute error of the log-probability of the outcome, nats.
        mae_standard_error: of mae, with trials of one theta taken together.
        abs_error_p99: 99 % of the trials have a smaller one.
        bias: mean error of the same, network minus reference: minus the information that is lost in each trial.
        probability_mae: mean absolute error in probability, over thetas and categories.
        probability_error_p99: 99 % of the thetas have a smaller one.
        reference_sampling_error: the reference's own mean absolute error in probability; 0 if exact.
        calibration_error: mean absolute difference between the network's probability and the share of simulated trials,
            over bins of the former; up to calibration_noise it is chance.
        calibration_noise: what a perfect network would have on average.
    """

    reference: ReferenceKind
    thetas: int
    trials: int
    mae: float
    mae_standard_error: float
    abs_error_p99: float
    bias: float
    probability_mae: float
    probability_error_p99: float
    reference_sampling_error: float
    calibration_error: float
    calibration_noise: float

    def numbers(self) -> dict[str, float]:
        """All but the kind of the reference, as MLflow takes metrics."""
        return {name: value for name, value in asdict(self).items() if name != "reference"}


@dataclass(frozen=True)
class Calibration:
    """Simulated trials in bins of the network's probability of the last category.

    Attributes:
        predicted: (M,) mean probability of the trials in a bin.
        share: (M,) of these trials in which it happened.
        noise: (M,) standard deviation of the share of a perfect network.
        trials: (M,) number of trials.
    """

    predicted: np.ndarray
    share: np.ndarray
    noise: np.ndarray
    trials: np.ndarray


@dataclass(frozen=True)
class JudgedProbabilities:
    """A network's probabilities (T, K) beside the reference's, and the numbers that follow from them."""

    reference: ProbabilityReference
    probability: np.ndarray
    calibration: Calibration
    metrics: ProbabilityMetrics


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
    drawn = sample_theta(model, n_thetas, rng).astype(np.float32).astype(float)
    parts = [
        _reference_part(spec, model, part, engines.densities(model, part, data, rng))
        for part in np.array_split(drawn, math.ceil(n_thetas / BLOCK_THETAS))
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
    limit = engines.time_limit(model, theta, data)
    delta_t = step(model, data.target, data.delta_t)
    rt, choice = simulate(model, theta, limit, data.target, delta_t, n, int(rng.integers(2**31)))
    omitted = np.isnan(rt)
    if spec.network_type == "opn":
        return omitted.astype(int)
    if spec.network_type == "gonogo":
        return (choice != model.choices[-1]).astype(int)
    return np.where(omitted, NO_OUTCOME, np.searchsorted(model.choices, np.where(omitted, model.choices[0], choice)))


def network_probabilities(network: LogLikelihood, spec: NetworkSpec, theta: np.ndarray) -> np.ndarray:
    """(T, K) probabilities of all categories from an exported network at (T, P) thetas."""
    if spec.network_type != "cpn":
        second = np.exp(np.minimum(network(theta.astype(np.float32)), 0.0))
        return np.stack([1 - second, second], axis=1)
    columns = [network(np.column_stack([theta, np.full(len(theta), choice)])) for choice in spec.choices]
    return np.exp(np.stack(columns, axis=1))


def judge_probabilities(
    network: LogLikelihood, reference: ProbabilityReference, min_log_probability: float
) -> JudgedProbabilities:
    """Compare a network with a reference.

    Args:
        network: an exported one, from `lanline.evaluation.exported.open_network`.
        reference: of its model and type.
        min_log_probability: outcomes that are less likely do not count for the errors in log-probability.

    Raises:
        UserError: the network gives something that is not a finite number.
    """
    probability = network_probabilities(network, reference.spec, reference.theta)
    if bad := np.count_nonzero(~np.isfinite(probability)):
        raise UserError(f"the network gives {bad:,} probabilities that are not numbers: its training diverged")
    happened = reference.outcome != NO_OUTCOME
    theta_index, trial = np.nonzero(happened)
    outcome = reference.outcome[theta_index, trial]
    smallest = np.finfo(float).tiny
    of_network = np.log(np.maximum(probability[theta_index, outcome], smallest))
    of_reference = np.log(np.maximum(reference.probability[theta_index, outcome], smallest))
    counts = of_reference > min_log_probability
    if not counts.any():
        raise UserError("evaluation.min_log_density: no simulated trial has an outcome that is more likely")
    error = (of_network - of_reference)[counts]
    absolute = np.abs(error)
    in_probability = np.abs(probability - reference.probability).mean(axis=1)
    calibration = _calibrate(probability[theta_index, -1], outcome == reference.probability.shape[1] - 1)
    weight = calibration.trials / calibration.trials.sum()
    metrics = ProbabilityMetrics(
        reference=reference.kind,
        thetas=len(reference.theta),
        trials=len(error),
        mae=float(absolute.mean()),
        mae_standard_error=clustered_standard_error(absolute - absolute.mean(), theta_index[counts]),
        abs_error_p99=float(np.quantile(absolute, 0.99)),
        bias=float(error.mean()),
        probability_mae=float(in_probability.mean()),
        probability_error_p99=float(np.quantile(in_probability, 0.99)),
        reference_sampling_error=float(reference.standard_error.mean() * np.sqrt(2 / np.pi)),
        calibration_error=float(weight @ np.abs(calibration.share - calibration.predicted)),
        calibration_noise=float(weight @ calibration.noise * np.sqrt(2 / np.pi)),
    )
    return JudgedProbabilities(reference, probability, calibration, metrics)


def _calibrate(predicted: np.ndarray, happened: np.ndarray) -> Calibration:
    """Bins of predicted probabilities (N,) that hold as many trials each, and how often it happened (N,) in them."""
    bins = np.array_split(np.argsort(predicted, kind="stable"), min(N_BINS, len(predicted)))
    noise = [np.sqrt((predicted[index] * (1 - predicted[index])).sum()) / len(index) for index in bins]
    return Calibration(
        predicted=np.array([predicted[index].mean() for index in bins]),
        share=np.array([happened[index].mean() for index in bins]),
        noise=np.array(noise),
        trials=np.array([len(index) for index in bins]),
    )
