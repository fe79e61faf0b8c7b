"""Training in JAX. This is the only file that imports jax.

A block of batches is one compiled loop: no return to Python between steps.
"""

from __future__ import annotations

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lanline.config import Training
from lanline.errors import UserError
from lanline.networks.specification import NetworkSpec, Weights
from lanline.training.backend import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    adam_corrections,
    flatten,
    layer_slices,
)

PREDICT_ROWS = 16_384

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "elu": jax.nn.elu,
}

Layers = list[tuple[jax.Array, jax.Array]]  # (in, out) weights and (out,) biases


class JaxBackend:
    """A network in training in JAX; see `lanline.training.backend.Backend`."""

    def __init__(self, spec: NetworkSpec, settings: Training, weights: Weights, threads: int):
        self._spec, self._settings = spec, settings
        self._device = _device(settings.device, threads)
        flat = flatten(weights)
        self._block_shape: tuple[int, int] | None = None
        self._block = jax.jit(partial(_block, spec.activations, settings), donate_argnums=0)
        self._predict = jax.jit(partial(_forward, spec.activations))
        self.restore({"parameters": flat, "first_moment": np.zeros_like(flat), "second_moment": np.zeros_like(flat)}, 0)

    def run_block(self, rows: np.ndarray, rates: np.ndarray) -> np.ndarray:
        k, b = rows.shape[:2]
        # One compilation serves all: shorter blocks and a smaller last batch are filled up and masked.
        if self._block_shape is None:
            self._block_shape = (k, b)
        full = np.zeros((*self._block_shape, rows.shape[2]), np.float32)
        full[:k, :b] = rows
        sizes, roots = adam_corrections(self._step, rates.astype(np.float64))
        numbers = np.zeros((self._block_shape[0], 3), np.float32)
        numbers[:k] = np.stack([rates, sizes, roots], axis=1)
        self._state, losses = self._block(self._state, full, numbers, k, b)
        self._step += k
        return np.asarray(losses)[:k]

    def predict(self, x: np.ndarray) -> np.ndarray:
        outputs = np.empty(len(x), np.float32)
        part = np.zeros((min(PREDICT_ROWS, len(x)), x.shape[1]), np.float32)
        for start in range(0, len(x), len(part)):
            n = min(len(part), len(x) - start)
            part[:n] = x[start : start + n]
            outputs[start : start + n] = np.asarray(self._predict(self._state[0], part))[:n]
        return outputs

    def state(self) -> dict[str, np.ndarray]:
        names = ("parameters", "first_moment", "second_moment")
        return {name: self._flat(layers) for name, layers in zip(names, self._state, strict=True)}

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        self._state = tuple(self._layers(state[name]) for name in ("parameters", "first_moment", "second_moment"))
        self._step = step

    def _layers(self, flat: np.ndarray) -> Layers:
        slices = zip(layer_slices(self._spec), self._spec.shapes, strict=True)
        return [
            tuple(jax.device_put(part.copy(), self._device) for part in (flat[weight].reshape(n_in, n_out), flat[bias]))
            for (weight, bias), (n_out, n_in) in slices
        ]

    def _flat(self, layers: Layers) -> np.ndarray:
        return np.concatenate([np.asarray(part).ravel() for layer in layers for part in layer])


def _forward(activations: tuple[str, ...], layers: Layers, x: jax.Array) -> jax.Array:
    for name, (weight, bias) in zip(activations, layers, strict=False):
        x = ACTIVATIONS[name](_product(x, weight) + bias)
    weight, bias = layers[-1]
    return _product(x, weight)[:, 0] + bias[0]


def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    # Full float32 on every device: a GPU's default would be TF32, with three digits.
    return jnp.matmul(x, weight, precision="highest")


def _mean_loss(activations, settings: Training, layers: Layers, rows: jax.Array, count: jax.Array) -> jax.Array:
    """Mean loss of the first ``count`` rows."""
    error = _forward(activations, layers, rows[:, :-1]) - rows[:, -1]
    if settings.loss == "mse":
        losses = error**2
    else:
        clipped = jnp.clip(error, -settings.huber_delta, settings.huber_delta)
        losses = clipped * (error - 0.5 * clipped)
    return jnp.where(jnp.arange(len(rows)) < count, losses, 0).sum() / count


def _block(activations, settings: Training, state, rows, numbers, n_batches, count):
    """Steps for the first ``n_batches`` batches of ``rows`` (k, b, D + 1), ``count`` rows of each."""
    gradient = jax.value_and_grad(partial(_mean_loss, activations, settings))

    def step(i, carry):
        (parameters, first, second), losses = carry
        loss, g = gradient(parameters, rows[i], count)
        return _update(settings, parameters, g, first, second, numbers[i]), losses.at[i].set(loss)

    return jax.lax.fori_loop(0, n_batches, step, (state, jnp.zeros(len(rows))))


def _update(settings: Training, parameters, g, first, second, numbers):
    """Parameters and moments after one step; semantics of torch.optim and optax."""
    rate, size, root = numbers
    tree = jax.tree.map
    if settings.gradient_clip is not None:
        norm = jnp.sqrt(sum(jnp.sum(part**2) for part in jax.tree.leaves(g)))
        factor = jnp.minimum(settings.gradient_clip / norm, 1)
        g = tree(lambda part: part * factor, g)
    if settings.weight_decay and settings.optimizer == "adamw":
        parameters = tree(lambda p: p * (1 - rate * settings.weight_decay), parameters)
    elif settings.weight_decay:
        g = tree(lambda part, p: part + settings.weight_decay * p, g, parameters)
    if settings.optimizer == "sgd":
        first = tree(lambda m, part: settings.momentum * m + part, first, g)
        return tree(lambda p, m: p - rate * m, parameters, first), first, second
    first = tree(lambda m, part: ADAM_BETA1 * m + (1 - ADAM_BETA1) * part, first, g)
    second = tree(lambda v, part: ADAM_BETA2 * v + (1 - ADAM_BETA2) * part**2, second, g)
    parameters = tree(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + ADAM_EPSILON), parameters, first, second)
    return parameters, first, second


def _device(name: str, threads: int) -> jax.Device:
    # XLA reads NPROC once, when its CPU client starts; without it, it takes every core of the machine.
    os.environ["NPROC"] = str(threads)
    if name == "cpu":
        return jax.devices("cpu")[0]
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        raise UserError(
            "training.device is gpu, but JAX finds none: run on a machine with a GPU and a CUDA build of "
            "jax, or set device: cpu"
        ) from None
