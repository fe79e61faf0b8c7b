"""Losses and errors in numpy: what validation reports, and what the frameworks' own losses are tested against."""

from __future__ import annotations

import numpy as np

from lanline.config import Training
from lanline.networks.heads import log_probabilities
from lanline.networks.specification import NetworkSpec

CROSS_ENTROPY = "bce"  # LANfactory's name for it


def loss_name(spec: NetworkSpec, settings: Training) -> str:
    """The loss that a network is trained with."""
    return CROSS_ENTROPY if spec.gives_probabilities else settings.loss


def loss_and_error(
    spec: NetworkSpec, settings: Training, outputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each row, and its absolute error: in log-likelihood, or in probability (mean over the categories).

    Args:
        spec: the network.
        settings: which loss a lan has.
        outputs: (n,) or (n, K) outputs.
        labels: (n, L): log-likelihood, probability of the second category, or probabilities of all K.

    Returns:
        (n,) and (n,), in the precision of ``outputs``.
    """
    if spec.gives_probabilities:
        probability = labels if labels.shape[1] > 1 else np.concatenate([1 - labels, labels], axis=1)
        logarithm = log_probabilities(outputs)
        return -(probability * logarithm).sum(axis=1), np.abs(np.exp(logarithm) - probability).mean(axis=1)
    distance = np.abs(outputs - labels[:, 0])
    if settings.loss == "mse":
        return distance**2, distance
    clipped = np.minimum(distance, settings.huber_delta)
    return clipped * (distance - 0.5 * clipped), distance
