"""Trials of thetas that no training set holds, for benchmarks that compare networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lanline.config import Data
from lanline.engines import densities
from lanline.models import Model
from lanline.theta import sample_theta


@dataclass(frozen=True)
class HeldOut:
    """Trials drawn from the exact densities of a model: theta (n, D), rt and choice (n, m), log-densities (n, m)."""

    theta: np.ndarray
    rt: np.ndarray
    choice: np.ndarray
    expected: np.ndarray

    @staticmethod
    def of(model: Model, thetas: int, trials: int) -> HeldOut:
        rng = np.random.default_rng(12345)
        theta = sample_theta(model, thetas, rng)
        exact = densities(model, theta, Data(), rng)
        rt, choice = exact.sample(trials, rng)
        return HeldOut(theta, rt, choice, exact.log_density(rt, choice))

    def inputs(self) -> np.ndarray:
        """What a network is given, (n m, D + 2) float32."""
        repeated = np.repeat(self.theta, self.rt.shape[1], axis=0)
        return np.column_stack([repeated, self.rt.ravel(), self.choice.ravel()]).astype(np.float32)
