"""The numbers by which networks that give probabilities (cpn, opn, gonogo) are judged."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from lanline.errors import UserError
from lanline.evaluation.exported import LogLikelihood
from lanline.evaluation.probability.reference import NO_OUTCOME, ProbabilityReference
from lanline.evaluation.trials import ReferenceKind, clustered_standard_error
from lanline.networks.specification import NetworkSpec

N_BINS = 20  # of the calibration


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
        UserError: the network returns values that are not finite.
    """
    probability = network_probabilities(network, reference.spec, reference.theta)
    if bad := np.count_nonzero(~np.isfinite(probability)):
        raise UserError(f"network returns {bad:,} probabilities that are not finite: its training diverged")
    happened = reference.outcome != NO_OUTCOME
    theta_index, trial = np.nonzero(happened)
    outcome = reference.outcome[theta_index, trial]
    smallest = np.finfo(float).tiny
    of_network = np.log(np.maximum(probability[theta_index, outcome], smallest))
    of_reference = np.log(np.maximum(reference.probability[theta_index, outcome], smallest))
    counts = of_reference > min_log_probability
    if not counts.any():
        raise UserError("evaluation.min_log_density: no simulated trial has an outcome with a log-probability above it")
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
