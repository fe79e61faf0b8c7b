"""What a framework must offer to the training loop, and what the frameworks share.

A backend holds a network and its optimizer. Everything that would have to be done twice (batches, rates,
initial weights, metrics, checkpoints) is done outside, in numpy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np

from lanline.config import Framework, Training
from lanline.errors import UserError
from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
BLOCK_ROWS = 100_000  # rows between two looks at the clock: a fraction of a second


def block_batches(settings: Training) -> int:
    """Batches in a whole block."""
    return max(1, BLOCK_ROWS // settings.batch_size)


Rows = TypeVar("Rows")  # as a framework holds them


class Backend(Protocol):
    """A network in training in one framework."""

    def run_block(self, rows: np.ndarray, index: np.ndarray, rates: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to take one optimizer step for each batch.

        Args:
            rows: (n, D + L) float32: standardised inputs, and as many labels as the network has outputs in the last
                columns. Many blocks take theirs from one array, which is brought to the device once.
            index: (k, b) int64, the rows of each batch: at most a whole block of whole batches.
            rates: (k,) learning rates.

        Returns:
            A function that waits until the steps are taken, and gives the mean loss (k,) of each batch before its own.
            Anything else than another block has to be asked for afterwards.
        """

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Outputs (n,), or (n, K) if there are several, for standardised inputs ``x`` (n, D)."""

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the parameters and of the optimizer's moments, each one flat float32 array (N,)."""

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        """Go on from a `state` that was taken after ``step`` optimizer steps."""


def start_backend(
    framework: Framework, spec: NetworkSpec, settings: Training, weights: Weights, threads: int
) -> Backend:
    """A backend that starts from ``weights``. Imports only the framework that is asked for.

    Raises:
        UserError: the framework is not installed, or the device that the settings ask for is not there.
    """
    name = {"torch": "TorchBackend", "jax": "JaxBackend"}[framework]
    try:
        module = importlib.import_module(f"lanline.training.{framework}_backend")
    except ModuleNotFoundError as error:
        raise UserError(f"framework {framework}: {error.name} is not installed; install lanline[{framework}]") from None
    return getattr(module, name)(spec, settings, weights, threads)


class Window(Generic[Rows]):
    """The rows that blocks are taken from, on the device: brought there once.

    Args:
        bring: brings rows (n, D + L) to the device.
    """

    def __init__(self, bring: Callable[[np.ndarray], Rows]):
        self._bring = bring
        self._held: tuple[np.ndarray, Rows] | None = None

    def of(self, rows: np.ndarray) -> Rows:
        """Raises: UserError: they do not fit."""
        if self._held is None or self._held[0] is not rows:
            self._held = None
            try:
                self._held = rows, self._bring(rows)
            except RuntimeError as error:
                size = f"{rows.nbytes / 1e9:.1f} GB of training rows"
                raise UserError(f"{size} cannot be brought to the device: lower training.buffer_gb ({error})") from None
        return self._held[1]

    def leave(self) -> None:
        """Let go of the rows."""
        self._held = None


def flatten(weights: Weights) -> np.ndarray:
    """All weights in one array (N,): layer by layer, the weights as (in, out), then the biases (out,)."""
    parts = []
    for layer in range(len(weights) // 2):
        parts += [weights[weight_name(layer)].T.ravel(), weights[bias_name(layer)]]
    return np.concatenate(parts)


def layer_slices(spec: NetworkSpec) -> list[tuple[slice, slice]]:
    """Where each layer's weights and biases lie in a flat array."""
    slices, start = [], 0
    for n_out, n_in in spec.shapes:
        middle = start + n_in * n_out
        slices.append((slice(start, middle), slice(middle, middle + n_out)))
        start = middle + n_out
    return slices


def unflatten(spec: NetworkSpec, flat: np.ndarray) -> Weights:
    """The inverse of `flatten`."""
    weights: Weights = {}
    for layer, (weight, bias) in enumerate(layer_slices(spec)):
        n_out, n_in = spec.shapes[layer]
        weights[weight_name(layer)] = np.ascontiguousarray(flat[weight].reshape(n_in, n_out).T)
        weights[bias_name(layer)] = flat[bias].copy()
    return weights


def adam_corrections(first: int, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adam's bias corrections (Kingma & Ba 2015) for the steps after ``first`` steps, in float64.

    Returns:
        Step sizes (k,), rate / (1 - beta1^t), and roots (k,), sqrt(1 - beta2^t): the update is
        step size * m / (sqrt(v) / root + epsilon).
    """
    t = np.arange(first + 1, first + len(rates) + 1)
    return rates / (1 - ADAM_BETA1**t), np.sqrt(1 - ADAM_BETA2**t)
