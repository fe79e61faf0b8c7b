"""What every engine offers, and what its densities answer."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lanline.config import Data
from lanline.models import Model


class Densities(Protocol):
    """Densities of (rt, choice) of one model at B thetas, with responses before a time limit.

    Times are response times in seconds, non-decision time included; choices are the model's own values.
    """

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(B, n) response times and choices, conditional on a response before the time limit.

        nan for a theta at which there is (next to) none.
        """

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """(B, n) log-density at (B, n) response times and choices.

        -inf where there is no density: before the onset and from the time limit on.
        """

    def choice_probability(self) -> np.ndarray:
        """(B, C) probability of each choice before the time limit, in the order of ``model.choices``."""

    def omission_probability(self) -> np.ndarray:
        """(B,) probability that there is no response before the time limit."""


class Engine(Protocol):
    """One way to get densities: a package of this folder."""

    def covers(self, model: Model) -> bool:
        """Whether the engine has the density of ``model``."""

    def densities(
        self, model: Model, theta: np.ndarray, limit: np.ndarray, data: Data, rng: np.random.Generator
    ) -> Densities:
        """Densities at each row of ``theta``.

        Args:
            model: one that the engine covers.
            theta: (B, P) parameters in the order of ``model.params``.
            limit: (B,) largest response time, seconds.
            data: target, step and number of trajectories.
            rng: used by engines that simulate.
        """
