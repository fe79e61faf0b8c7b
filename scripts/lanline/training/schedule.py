"""Learning rates, step by step, in numpy: the same numbers for every framework."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lanline.config import Training


class Schedule:
    """The learning rate of every step of a training.

    The rate first rises linearly from 0 for ``warmup_fraction`` of all steps. Then ``cosine`` falls to 0
    (Loshchilov & Hutter 2017) and ``exponential`` to ``decay`` of the highest rate at the last step;
    ``multiply`` multiplies the rate with ``decay`` after every epoch; ``reduce_on_plateau`` does so after every
    ``patience`` epochs in which the validation loss did not fall by the share ``threshold``, down to
    ``min_learning_rate``.
    """

    def __init__(self, settings: Training, n_steps: int):
        self._settings = settings
        self._n_steps = n_steps
        self._warmup = round(settings.warmup_fraction * n_steps)
        self._epochs = 0
        self._cuts = 0
        self._best = math.inf
        self._waited = 0

    def rates(self, first: int, count: int) -> np.ndarray:
        """Rates (count,) of the steps from ``first`` (counted from 0), float32."""
        steps = np.arange(first, first + count, dtype=np.float64)
        after = (steps - self._warmup) / max(1, self._n_steps - self._warmup)
        match self._settings.schedule:
            case "cosine":
                share = 0.5 * (1 + np.cos(np.pi * after))
            case "exponential":
                share = self._settings.decay**after
            case "multiply":
                share = np.full(count, self._settings.decay**self._epochs)
            case "reduce_on_plateau":
                lowest = min(1.0, self._settings.min_learning_rate / self._settings.learning_rate)
                share = np.full(count, max(self._settings.decay**self._cuts, lowest))
            case "constant":
                share = np.ones(count)
        share = np.where(steps < self._warmup, (steps + 1) / max(1, self._warmup), share)
        return (self._settings.learning_rate * share).astype(np.float32)

    def end_epoch(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss."""
        self._epochs += 1
        if validation_loss < self._best * (1 - self._settings.threshold):
            self._best, self._waited = validation_loss, 0
            return
        self._waited += 1
        if self._waited >= self._settings.patience:
            self._cuts, self._waited = self._cuts + 1, 0

    def state(self) -> dict[str, Any]:
        return {"epochs": self._epochs, "cuts": self._cuts, "best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        self._epochs, self._cuts = state["epochs"], state["cuts"]
        self._best, self._waited = state["best"], state["waited"]
