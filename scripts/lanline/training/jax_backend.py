"""Training in JAX; the loop meets jax here, and here alone.

A block of batches is one compiled loop: no return to Python between steps. On the CPU each core is a device of its own
that takes its share of every batch through the whole network, with one sum of gradients a step (`jax_sum`). XLA's own
threads inside each operation take half as much processor time again.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lanline.config import Training
from lanline.errors import UserError
from lanline.networks.specification import NetworkSpec, Weights
from lanline.training.backend import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    Window,
    adam_corrections,
    block_batches,
    flatten,
    layer_slices,
)
from lanline.training.jax_sum import sum_of

PREDICT_ROWS = 16_384
ONE_THREAD_A_DEVICE = "--xla_cpu_multi_thread_eigen=false"
SHARES = "shares"  # name of the axis along which the rows of a batch lie on several devices

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
        mesh = Mesh(np.array(_devices(settings.device, threads)), (SHARES,))
        everywhere, shared = PartitionSpec(), PartitionSpec(SHARES)
        self._everywhere, self._shared = NamedSharding(mesh, everywhere), NamedSharding(mesh, shared)
        self._n_shares = mesh.size
        self._resident = settings.device == "gpu"  # whether rows are brought to the device a window at a time
        self._window = Window(partial(jax.device_put, device=self._everywhere))
        # What runs writes into memory of `jax_sum`: it has to end before that goes, however this training ends.
        self._running: list[jax.Array] = []
        weakref.finalize(self, jax.block_until_ready, self._running)
        # Every block is filled up to one shape: one compilation serves all, and the last batch of an epoch is summed
        # in the same order whether or not the training was interrupted just before it.
        self._block_shape = (block_batches(settings), self._filled(settings.batch_size))
        flat = flatten(weights)
        total = sum_of(mesh.size, 1 + len(flat))  # of the loss and the gradient
        block = jax.shard_map(
            partial(_block, spec, settings, self._resident, total),
            mesh=mesh,
            in_specs=(everywhere, shared, everywhere, everywhere, everywhere),
            out_specs=everywhere,
            check_vma=False,
        )
        self._block = jax.jit(block, donate_argnums=0)
        self._predict = jax.jit(
            jax.shard_map(
                partial(_forward, spec.activations), mesh=mesh, in_specs=(everywhere, shared), out_specs=shared
            )
        )
        self.restore({"parameters": flat, "first_moment": np.zeros_like(flat), "second_moment": np.zeros_like(flat)}, 0)
        # A block of no batches: compiles now, so that compilation counts as start-up and not as training.
        rows = np.zeros((1, len(spec.features) + spec.layers[-1]), np.float32)
        self.run_block(rows, np.zeros((0, settings.batch_size), np.int64), np.zeros(0, np.float32))()

    def run_block(self, rows: np.ndarray, index: np.ndarray, rates: np.ndarray) -> Callable[[], np.ndarray]:
        k, b = index.shape
        full = np.zeros(self._block_shape, np.int64)
        full[:k, :b] = index
        sizes, roots = adam_corrections(self._step, rates.astype(np.float64))
        numbers = np.zeros((len(full), 3), np.float32)
        numbers[:k] = np.stack([rates, sizes, roots], axis=1)
        self._state, losses = self._block(self._state, self._shares(rows, full), numbers, k, b)
        self._running[:] = [losses]
        self._step += k
        return lambda: np.asarray(losses)[:k]

    def _shares(self, rows: np.ndarray, index: np.ndarray) -> jax.Array:
        """The rows (k, b) that ``index`` names, on the devices: each one's share of all batches in one piece."""
        index = index.reshape(len(index), self._n_shares, -1).swapaxes(0, 1)
        if not self._resident:
            return jax.device_put(rows.take(index, axis=0), self._shared)
        return _take(self._window.of(rows), index)

    def predict(self, x: np.ndarray) -> np.ndarray:
        n_outputs = self._spec.layers[-1]
        outputs = np.empty((len(x), n_outputs) if n_outputs > 1 else len(x), np.float32)
        part = np.zeros((self._filled(min(PREDICT_ROWS, len(x))), x.shape[1]), np.float32)
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
        self._window.leave()

    def _filled(self, rows: int) -> int:
        """``rows``, or the next number that every share gets the same part of."""
        return -(-rows // self._n_shares) * self._n_shares

    def _layers(self, flat: np.ndarray) -> Layers:
        slices = zip(layer_slices(self._spec), self._spec.shapes, strict=True)
        return [
            tuple(
                jax.device_put(part.copy(), self._everywhere)
                for part in (flat[weight].reshape(n_in, n_out), flat[bias])
            )
            for (weight, bias), (n_out, n_in) in slices
        ]

    def _flat(self, layers: Layers) -> np.ndarray:
        return np.concatenate([np.asarray(part).ravel() for layer in layers for part in layer])


@jax.jit
def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    return rows[index]


def _forward(activations: tuple[str, ...], layers: Layers, x: jax.Array) -> jax.Array:
    for name, (weight, bias) in zip(activations, layers, strict=False):
        x = ACTIVATIONS[name](_product(x, weight) + bias)
    weight, bias = layers[-1]
    x = _product(x, weight) + bias
    return x[:, 0] if x.shape[1] == 1 else x


def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    # Full float32 on every device: a GPU's default would be TF32, with three digits.
    return jnp.matmul(x, weight, precision="highest")


def _losses(spec: NetworkSpec, settings: Training, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Loss (n,) of outputs (n,) or (n, K) at labels (n, L); as `lanline.training.losses`."""
    if labels.shape[1] > 1:
        return -(labels * jax.nn.log_softmax(outputs)).sum(axis=1)
    if spec.gives_probabilities:
        return jax.nn.softplus(outputs) - labels[:, 0] * outputs
    error = outputs - labels[:, 0]
    if settings.loss == "mse":
        return error**2
    clipped = jnp.clip(error, -settings.huber_delta, settings.huber_delta)
    return clipped * (error - 0.5 * clipped)


def _part_of_loss(spec, settings: Training, layers: Layers, rows: jax.Array, count: jax.Array) -> jax.Array:
    """What this device's ``rows`` add to the mean loss of a batch whose first ``count`` rows are real."""
    x, labels = rows[:, : len(spec.features)], rows[:, len(spec.features) :]
    losses = _losses(spec, settings, _forward(spec.activations, layers, x), labels)
    number = jax.lax.axis_index(SHARES) * len(rows) + jnp.arange(len(rows))
    return jnp.where(number < count, losses, 0).sum() / count


def _block(spec: NetworkSpec, settings: Training, always_whole: bool, total, state, shares, numbers, n_batches, count):
    """Steps for the first ``n_batches`` batches; of each, this device has ``shares`` (1, k, b / devices, D + L), and
    ``count`` rows are real on all devices together.

    ``total`` sums loss and gradient over the devices. ``always_whole`` goes through all batches, and changes nothing in
    those that are not there: a GPU would ask the host after every step whether there is another one.
    """
    part = jax.value_and_grad(partial(_part_of_loss, spec, settings))
    rows = shares[0]

    def step(i, carry):
        state, losses = carry
        parameters, first, second = state
        loss, g = total(part(parameters, rows[i], count), SHARES)
        new = _update(settings, parameters, g, first, second, numbers[i])
        if always_whole:
            new = jax.tree.map(lambda after, before: jnp.where(i < n_batches, after, before), new, state)
        return new, losses.at[i].set(loss)

    return jax.lax.fori_loop(0, len(rows) if always_whole else n_batches, step, (state, jnp.zeros(len(rows))))


def _update(settings: Training, parameters, g, first, second, numbers):
    """Parameters and moments after one step; semantics of torch.optim."""
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


def _devices(name: str, threads: int) -> list[jax.Device]:
    if name == "cpu":
        return _cpu_devices(threads)
    try:
        return jax.devices("gpu")[:1]
    except RuntimeError:
        raise UserError(
            "training.device is gpu, but JAX finds none: run on a machine with a GPU and a CUDA build of "
            "jax, or set device: cpu"
        ) from None


def _cpu_devices(threads: int) -> list[jax.Device]:
    """One device for each thread. All of this is read once, when XLA's CPU client starts."""
    os.environ["NPROC"] = str(threads)  # size of XLA's thread pool
    flags = os.environ.get("XLA_FLAGS", "")
    if ONE_THREAD_A_DEVICE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_THREAD_A_DEVICE}".strip()
    if jax.config.jax_num_cpu_devices < threads:
        with suppress(RuntimeError):  # the client has started already: its devices are those of an earlier network
            jax.config.update("jax_num_cpu_devices", threads)
    devices = jax.devices("cpu")
    if len(devices) < threads:
        raise UserError(
            f"JAX was started in this process with {len(devices)} CPU device(s) before a training asked for {threads}: "
            "start the training before anything else uses JAX"
        )
    return devices[:threads]
