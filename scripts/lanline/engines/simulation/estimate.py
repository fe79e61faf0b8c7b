"""Densities from simulated trials: one kernel density estimate for each theta and choice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanline.engines.simulation import kde


@dataclass(frozen=True)
class Simulated:
    """Kernel density estimates for B thetas; see `lanline.engines.Densities`.

    Attributes:
        rt: (B, n) simulated response times, seconds; nan for omissions.
        choice: (B, n) simulated choices; nan for omissions.
        limit: (B,) time limit of a response.
        choices: the values of the choices.
        max_t: the workflow's time limit, for choices that no trial made.
        estimates: (B, C) one estimate per theta and choice, None where no trial made it.
    """

    rt: np.ndarray
    choice: np.ndarray
    limit: np.ndarray
    choices: tuple[int, ...]
    max_t: float
    estimates: list[list[kde.LogRtDensity | None]]

    def choice_probability(self) -> np.ndarray:
        return np.stack([(self.choice == value).mean(axis=1) for value in self.choices], axis=1)

    def omission_probability(self) -> np.ndarray:
        return np.isnan(self.rt).mean(axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws from the estimate: a simulated response, moved by a draw from its kernel."""
        n_theta = len(self.rt)
        rt, choice = np.full((2, n_theta, n), np.nan)
        uniform, noise = rng.random((n_theta, n)), rng.standard_normal((n_theta, n))
        for b in range(n_theta):
            responses = np.flatnonzero(~np.isnan(self.rt[b]))
            if len(responses) == 0:
                continue
            drawn = responses[(uniform[b] * len(responses)).astype(int)]
            choice[b] = self.choice[b, drawn]
            bandwidth = np.array([estimate.bandwidth if estimate else 0.0 for estimate in self.estimates[b]])
            moved = self.rt[b, drawn] * np.exp(bandwidth[self._index(choice[b])] * noise[b])
            # A kernel may reach past the time limit, where there are no responses.
            rt[b] = np.where(moved < self.limit[b], moved, self.rt[b, drawn])
        return rt, choice

    def log_density(self, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """Log of the estimate. A choice that no trial made has the density 1 / (trials * max_t), as in
        LogKDE."""
        out = np.full(rt.shape, -np.inf)
        index = self._index(choice)
        inside = (rt > 0) & (rt < self.limit[:, None])
        n_trials = self.rt.shape[1]
        for b, c in np.ndindex(len(rt), len(self.choices)):
            rows = inside[b] & (index[b] == c)
            estimate = self.estimates[b][c]
            if estimate is None:
                out[b, rows] = -math.log(n_trials * self.max_t)
            else:
                share = np.count_nonzero(self.choice[b] == self.choices[c]) / n_trials
                out[b, rows] = estimate.log_density(rt[b, rows]) + math.log(share)
        return out

    def _index(self, choice: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.asarray(self.choices), choice)
