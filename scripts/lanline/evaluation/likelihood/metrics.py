"""The numbers by which a network is judged, the same for every framework."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from lanline.errors import UserError
from lanline.evaluation.exported import LogLikelihood
from lanline.evaluation.likelihood.reference import Curves, Reference
from lanline.evaluation.trials import ReferenceKind, clustered_standard_error

MAX_EXPONENT = 100.0  # a hopeless network's mass stays a number


@dataclass(frozen=True)
class Metrics:
    """Errors of a network. Log-likelihoods are in nats, natural logarithm of a density in 1/s.

    Attributes:
        reference: exact (a formula), or simulation (kernel density estimate of fresh simulated trials).
        trials: how many trials the errors are averaged over: the reference is above min_log_density there.
        trials_below_min: simulated trials that do not count because the reference is lower.
        trials_omitted: simulated trials without a response before max_t, which do not count either.
        mae: mean absolute error.
        mae_standard_error: of mae, with trials of one theta taken together.
        rmse: root of the mean squared error.
        abs_error_p99: 99 % of the trials have a smaller absolute error.
        bias: mean error, network minus reference.
        reference_sampling_error: the reference's own mean absolute error from its limited number of trajectories,
            half of what its two halves differ by; 0 if exact. The smoothing of a kernel density estimate is not in it.
        mass_mean: total probability of a theta, mean over thetas: the integral of the network's density over
            [0, max_t] and all choices, plus the reference's probability of an omission.
        mass_q05: 5 % quantile of the total probability.
        mass_q95: 95 % quantile of the total probability.
        total_variation_mean: half the integral of |network - reference|, mean over thetas; 0 is perfect, 1 disjoint.
        total_variation_q95: 95 % quantile of the same.
    """

    reference: ReferenceKind
    trials: int
    trials_below_min: int
    trials_omitted: int
    mae: float
    mae_standard_error: float
    rmse: float
    abs_error_p99: float
    bias: float
    reference_sampling_error: float
    mass_mean: float
    mass_q05: float
    mass_q95: float
    total_variation_mean: float
    total_variation_q95: float

    def numbers(self) -> dict[str, float]:
        """All but the kind of the reference, as MLflow takes metrics."""
        return {name: value for name, value in asdict(self).items() if name != "reference"}


@dataclass(frozen=True)
class Judged:
    """A network's values beside the reference's, and the numbers that follow from them; figures are drawn from it.

    Attributes:
        reference: what the network was judged against.
        error: (N,) network minus reference in log-density, nats, at ``reference.trials``.
        density: (T, C, N) density of the network on the grid of ``reference.curves``, 1/s.
        total_variation: (T,) half the integral of |network - reference| for each theta of ``reference.curves``.
        metrics: the numbers.
    """

    reference: Reference
    error: np.ndarray
    density: np.ndarray
    total_variation: np.ndarray
    metrics: Metrics


def input_rows(theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """(n, P + 2) network inputs params..., rt, choice in float32 from (n, P), (n,) and (n,)."""
    return np.column_stack([theta, rt, choice]).astype(np.float32)


def judge(network: LogLikelihood, reference: Reference) -> Judged:
    """Compare a network with a reference.

    Args:
        network: inputs (n, P + 2) to log-likelihoods (n,), e.g. from `lanline.evaluation.exported.open_network`.
        reference: trials and curves of the network's model.

    Raises:
        UserError: the network returns values that are not finite.
    """
    trials, curves = reference.trials, reference.curves
    values = network(input_rows(trials.theta, trials.rt, trials.choice))
    density = _network_density(network, curves)
    if bad := np.count_nonzero(~np.isfinite(values)) + np.count_nonzero(~np.isfinite(density)):
        raise UserError(f"network returns NaN or infinite log-likelihoods for {bad:,} inputs: its training diverged")
    error = values - trials.log_density
    absolute = np.abs(error)
    mae = float(absolute.mean())
    mass = _integrate(density, curves.rt) + curves.omission
    total_variation = 0.5 * _integrate(np.abs(density - curves.density), curves.rt)
    metrics = Metrics(
        reference=reference.kind,
        trials=len(error),
        trials_below_min=trials.below_min,
        trials_omitted=trials.omitted,
        mae=mae,
        mae_standard_error=clustered_standard_error(absolute - mae, trials.cluster),
        rmse=float(np.sqrt(np.mean(error**2))),
        abs_error_p99=float(np.quantile(absolute, 0.99)),
        bias=float(error.mean()),
        # The mean of two independent halves has half the error of their difference.
        reference_sampling_error=float(np.abs(trials.halves_difference).mean() / 2),
        mass_mean=float(mass.mean()),
        mass_q05=float(np.quantile(mass, 0.05)),
        mass_q95=float(np.quantile(mass, 0.95)),
        total_variation_mean=float(total_variation.mean()),
        total_variation_q95=float(np.quantile(total_variation, 0.95)),
    )
    return Judged(reference, error, density, total_variation, metrics)


def _network_density(network: LogLikelihood, curves: Curves) -> np.ndarray:
    """(T, C, N) density of the network on the grid of ``curves``."""
    shape = (len(curves.theta), len(curves.choices), curves.rt.shape[1])
    theta, choice, step = (axis.ravel() for axis in np.indices(shape))
    values = network(input_rows(curves.theta[theta], curves.rt[theta, step], curves.choices[choice]))
    return np.exp(np.minimum(values, MAX_EXPONENT)).reshape(shape)


def _integrate(density: np.ndarray, rt: np.ndarray) -> np.ndarray:
    """(T,) integral over rt, summed over choices, of ``density`` (T, C, N) at ``rt`` (T, N)."""
    return np.trapezoid(density.sum(axis=1), rt, axis=1)
