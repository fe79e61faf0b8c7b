"""Exact probabilities of models of the choice alone: P(c) = exp(beta q_c) / sum_j exp(beta q_j).

These models have no response times. Where one is asked for it is 0, and the log-density is the log-probability of the
choice at any response time that is not negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from lanline.models import Model

SIMULATOR = "inv_temp_softmax"


def covers(model: Model) -> bool:
    """Whether this engine has the probabilities of ``model``."""
    return model.simulator == SIMULATOR


@dataclass(frozen=True)
class ChoiceOnly:
    """Choice probabilities of B thetas; see `lanline.engines.Densities`.

    Attributes:
        log_probability: (B, C) of each choice.
        choices: (C,) their values.
    """

    log_probability: np.ndarray
    choices: np.ndarray

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        cumulative = np.cumsum(self.choice_probability(), axis=1)[:, None, :-1]
        index = (rng.random((len(cumulative), n, 1)) >= cumulative).sum(axis=2)
        return np.zeros(index.shape), self.choices[index].astype(float)

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        index = np.searchsorted(self.choices, choice)
        return np.where(rt >= 0, np.take_along_axis(self.log_probability, index, axis=1), -np.inf)

    def choice_probability(self) -> np.ndarray:
        return np.exp(self.log_probability)

    def omission_probability(self) -> np.ndarray:
        return np.zeros(len(self.log_probability))


def densities(model: Model, theta: np.ndarray, limit: np.ndarray, shift: float) -> ChoiceOnly:
    """Probabilities at each row of ``theta``; ``limit`` and ``shift`` change nothing without response times."""
    values = theta[:, [model.params.index(f"q{c}") for c in range(len(model.choices))]]
    log_probability = log_softmax(theta[:, [model.params.index("beta")]] * values, axis=1)
    return ChoiceOnly(log_probability, np.asarray(model.choices))
