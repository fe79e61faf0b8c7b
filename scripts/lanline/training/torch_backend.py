"""Training in PyTorch; the loop meets torch nowhere else.

The forward and backward passes are written out for the one architecture there is, on buffers that are made
once: autograd, allocation and the optimizer's bookkeeping would take as long as the arithmetic. Arrays are
(units, rows): the CPU's matrix products are up to seven times as fast that way where a layer has few inputs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

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

PIECE_ROWS = 1024  # rows that go through the network at once on a CPU: more do not fit a core's cache


def _script(function: Callable) -> Callable:
    """``function`` in TorchScript, which runs without Python's lock: threads in it do not wait for each other.

    Where torch has none (it is deprecated, and not for Python 3.14), the function itself: same numbers, slower.
    """
    if not hasattr(torch.jit, "script") or sys.version_info >= (3, 14):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


@_script
def _forward(
    x: Tensor, layers: list[Tensor], names: list[str], sums: list[Tensor], outs: list[Tensor], hidden: list[Tensor]
) -> Tensor:
    """Outputs (K, n) for inputs (D + 1, n); leaves sums z (2 z for tanh) and activations h in the buffers."""
    for i in range(len(names)):
        z, h, name = sums[i], outs[i], names[i]
        torch.addmm(z, layers[i], x, beta=0.0, alpha=2.0 if name == "tanh" else 1.0, out=z)
        if name == "tanh":
            # 2 sigmoid(2 z) - 1: on a CPU without AVX-512 torch's sigmoid is three times as fast as its tanh.
            torch.sigmoid(z, out=h)
            h.mul_(2.0).sub_(1.0)
        elif name == "relu":
            torch.clamp(z, min=0.0, out=h)
        elif name == "sigmoid":
            torch.sigmoid(z, out=h)
        elif name == "softplus":
            torch.ops.aten.softplus(z, out=h)
        elif name == "gelu":
            torch.ops.aten.gelu(z, out=h)
        else:
            torch.ops.aten.elu(z, out=h)
        x = hidden[i]
    return torch.mm(layers[-1], x)


@_script
def _through_activation(name: str, g: Tensor, z: Tensor, h: Tensor):
    """Turn the gradient g at h = f(z) into the one at z, in place."""
    if name == "tanh":
        torch.ops.aten.tanh_backward(g, h, grad_input=g)
    elif name == "relu":
        torch.ops.aten.threshold_backward(g, h, 0.0, grad_input=g)
    elif name == "sigmoid":
        torch.ops.aten.sigmoid_backward(g, h, grad_input=g)
    elif name == "softplus":
        torch.ops.aten.softplus_backward(g, z, 1.0, 20.0, grad_input=g)
    elif name == "gelu":
        torch.ops.aten.gelu_backward(g, z, grad_input=g)
    else:
        torch.ops.aten.elu_backward(g, 1.0, 1.0, 1.0, False, z, grad_input=g)


@_script
def _loss(kind: str, delta: float, outputs: Tensor, y: Tensor, n_rows: int, loss: Tensor) -> Tensor:
    """Add the loss of the outputs (K, n) in a mean over ``n_rows``; give its derivative by each of them (K, n)."""
    if kind == "cross-entropy" and len(outputs) == 1:  # one logit has two categories, several have one each
        loss.add_(torch.sum(torch.ops.aten.softplus(outputs)) - torch.dot(y[0], outputs[0]), alpha=1 / n_rows)
        return outputs.sigmoid_().sub_(y).div_(n_rows)
    if kind == "cross-entropy":
        logarithm = torch.log_softmax(outputs, 0)
        loss.sub_(torch.sum(y * logarithm), alpha=1 / n_rows)
        return logarithm.exp_().sub_(y).div_(n_rows)
    error = outputs.sub_(y)
    flat = error[0]
    if kind == "mse":
        loss.add_(torch.dot(flat, flat), alpha=1 / n_rows)
        return error.mul_(2 / n_rows)
    clipped = error.clamp(-delta, delta)
    loss.add_(torch.dot(clipped[0], flat.sub_(clipped[0], alpha=0.5)), alpha=1 / n_rows)
    return clipped.div_(n_rows)


@_script
def _gradient(
    rows: Tensor,
    n_inputs: int,
    n_rows: int,
    kind: str,
    delta: float,
    loss: Tensor,
    gradients: list[Tensor],
    back: list[Tensor],
    layers: list[Tensor],
    names: list[str],
    sums: list[Tensor],
    outs: list[Tensor],
    hidden: list[Tensor],
):
    """Leave what the ``rows`` (D + 1 + L, n) add to the gradient of the mean loss of ``n_rows``; add to that loss."""
    x, y = rows[: n_inputs + 1], rows[n_inputs + 1 :]
    g = _loss(kind, delta, _forward(x, layers, names, sums, outs, hidden), y, n_rows, loss)
    for below in range(len(names)):
        layer = len(names) - below
        torch.mm(hidden[layer - 1], g.t(), out=gradients[layer])
        g = back[layer] * g if len(g) == 1 else back[layer] @ g
        _through_activation(names[layer - 1], g, sums[layer - 1], outs[layer - 1])
    torch.mm(x, g.t(), out=gradients[0])


class TorchBackend:
    """A network in training in PyTorch; see `lanline.training.backend.Backend`.

    On the CPU each thread takes its share of a batch through the whole network. That needs one meeting of the
    threads a step; threads inside each operation meet thirty times and wait for each other wherever another
    process takes a core.
    """

    def __init__(self, spec: NetworkSpec, settings: Training, weights: Weights, threads: int):
        _set_up_thread()
        self._device = _device(settings.device)
        self._settings, self._n_inputs = settings, len(spec.inputs)
        self._step = 0
        self._parameters = torch.from_numpy(flatten(weights)).to(self._device)
        self._first, self._second, self._scratch = (torch.zeros_like(self._parameters) for _ in range(3))
        on_cpu = self._device.type == "cpu"
        self._shares = [_Share(spec, settings, self._parameters) for _ in range(threads if on_cpu else 1)]
        self._piece_rows = PIECE_ROWS if on_cpu else sys.maxsize
        self._pool = ThreadPoolExecutor(len(self._shares), initializer=_set_up_thread)

    def run_block(self, rows: np.ndarray, rates: np.ndarray) -> np.ndarray:
        n_rows = rows.shape[1]
        block = _with_ones(torch.from_numpy(rows).to(self._device), self._n_inputs)
        pieces = [block[..., a:b].contiguous().unbind() for a, b in self._pieces(n_rows)]
        losses = torch.zeros(len(self._shares), len(rows), device=self._device)
        sizes, roots = adam_corrections(self._step, rates.astype(np.float64))
        steps = zip(*pieces, *losses.unbind(), rates.tolist(), sizes.tolist(), roots.tolist(), strict=True)
        for *batch, rate, size, root in steps:
            self._gradient(batch[: len(pieces)], batch[len(pieces) :], n_rows)
            self._update(self._shares[0].gradient, rate, size, root)
        self._step += len(rows)
        return losses.sum(0).cpu().numpy()

    def _pieces(self, n_rows: int) -> list[tuple[int, int]]:
        """First and last row of each piece: as many for every share, each small enough for a core's cache."""
        n = len(self._shares)
        n *= -(-n_rows // (n * self._piece_rows))
        return list(pairwise(np.linspace(0, n_rows, min(n, n_rows) + 1).astype(int).tolist()))

    def _gradient(self, pieces: list[Tensor], losses: list[Tensor], n_rows: int) -> None:
        """The gradient of the mean loss of a batch, in the first share, and each share's part of that loss."""
        first, *others = self._shares[: len(pieces)]
        n = len(self._shares)
        waiting = [
            self._pool.submit(share.gradient_of, pieces[i::n], n_rows, losses[i])
            for i, share in enumerate(others, start=1)
        ]
        first.gradient_of(pieces[::n], n_rows, losses[0])
        for future, share in zip(waiting, others, strict=True):
            future.result()
            first.gradient.add_(share.gradient)

    def _update(self, g: Tensor, rate: float, size: float, root: float) -> None:
        settings, p = self._settings, self._parameters
        if settings.gradient_clip is not None:
            g.mul_((settings.gradient_clip / torch.linalg.vector_norm(g)).clamp_(max=1))
        if settings.weight_decay and settings.optimizer == "adamw":
            p.mul_(1 - rate * settings.weight_decay)
        elif settings.weight_decay:
            g.add_(p, alpha=settings.weight_decay)
        if settings.optimizer == "sgd":
            self._first.mul_(settings.momentum).add_(g)
            p.add_(self._first, alpha=-rate)
            return
        self._first.lerp_(g, 1 - ADAM_BETA1)
        self._second.mul_(ADAM_BETA2).addcmul_(g, g, value=1 - ADAM_BETA2)
        denominator = torch.sqrt(self._second, out=self._scratch).div_(root).add_(ADAM_EPSILON)
        p.addcdiv_(self._first, denominator, value=-size)

    def predict(self, x: np.ndarray) -> np.ndarray:
        rows = min(self._piece_rows, len(x))
        pieces = [
            _with_ones(torch.from_numpy(x[start : start + rows]), self._n_inputs) for start in range(0, len(x), rows)
        ]
        n = len(self._shares)
        outputs = self._pool.map(_Share.predict, self._shares, [pieces[i::n] for i in range(n)])
        ordered: list[Tensor] = [torch.empty(0, 0)] * len(pieces)
        for i, part in enumerate(outputs):
            ordered[i::n] = part
        joined = torch.cat(ordered, 1)
        return (joined[0] if len(joined) == 1 else joined.t()).numpy()

    def state(self) -> dict[str, np.ndarray]:
        arrays = {"parameters": self._parameters, "first_moment": self._first, "second_moment": self._second}
        return {name: array.cpu().numpy().copy() for name, array in arrays.items()}

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        self._parameters.copy_(torch.from_numpy(state["parameters"]))
        self._first.copy_(torch.from_numpy(state["first_moment"]))
        self._second.copy_(torch.from_numpy(state["second_moment"]))
        self._step = step


class _Share:
    """Forward and backward pass over some rows of a batch, in buffers of its own.

    A layer's bias is the last row of its weights, for an input that is always one: no operations of its own.
    """

    def __init__(self, spec: NetworkSpec, settings: Training, parameters: Tensor):
        self.gradient, self._further = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._spec, self._device, self._names = spec, parameters.device, list(spec.activations)
        self._loss = "cross-entropy" if spec.gives_probabilities else settings.loss, settings.huber_delta
        layers = _layers(spec, parameters)
        self._forward = [layer.t() for layer in layers]
        self._back = [layer[:-1] for layer in layers]
        self._gradients, self._further_gradients = _layers(spec, self.gradient), _layers(spec, self._further)
        self._buffers: dict[int, tuple[list[Tensor], list[Tensor], list[Tensor]]] = {}

    def predict(self, pieces: list[Tensor]) -> list[Tensor]:
        """Outputs (K, n) for each piece (D + 1, n)."""
        return [
            _forward(piece.to(self._device), self._forward, self._names, *self._buffers_for(piece.shape[1])).cpu()
            for piece in pieces
        ]

    def gradient_of(self, pieces: list[Tensor], n_rows: int, loss: Tensor) -> None:
        """Leave what the pieces (D + 1 + L, n) add to the gradient of the mean loss of ``n_rows``, and to that loss."""
        self._gradient_of(pieces[0], n_rows, loss, self._gradients)
        for piece in pieces[1:]:
            self._gradient_of(piece, n_rows, loss, self._further_gradients)
            self.gradient.add_(self._further)

    def _gradient_of(self, rows: Tensor, n_rows: int, loss: Tensor, gradients: list[Tensor]) -> None:
        network = self._back, self._forward, self._names, *self._buffers_for(rows.shape[1])
        _gradient(rows, len(self._spec.inputs), n_rows, *self._loss, loss, gradients, *network)

    def _buffers_for(self, n: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """For ``n`` rows: sums z and activations h of the hidden layers, one buffer where z need not be kept, and h
        with the row of ones."""
        if n not in self._buffers:
            hidden = [torch.ones(units + 1, n, device=self._device) for units in self._spec.layers[:-1]]
            outs = [h[:-1] for h in hidden]
            sums = [
                torch.empty_like(h) if name in ("softplus", "gelu", "elu") else h
                for h, name in zip(outs, self._names, strict=True)
            ]
            self._buffers[n] = sums, outs, hidden
        return self._buffers[n]


def _set_up_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal numbers in tails make products many times slower


def _with_ones(rows: Tensor, n_inputs: int) -> Tensor:
    """Columns (..., D + 1 + L, n) of rows (..., n, D + L): the inputs, ones, and the labels."""
    x, y = rows[..., :n_inputs], rows[..., n_inputs:]
    return torch.cat([x, torch.ones_like(rows[..., :1]), y], -1).transpose(-1, -2)


def _layers(spec: NetworkSpec, flat: Tensor) -> list[Tensor]:
    """Weights of each layer with the biases as the last row, (in + 1, out), in a flat array."""
    slices = zip(layer_slices(spec), spec.shapes, strict=True)
    return [flat[weight.start : bias.stop].view(n_in + 1, n_out) for (weight, bias), (n_out, n_in) in slices]


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "training.device is gpu, but PyTorch finds none: run on a machine with a GPU and a CUDA build of "
            "torch, or set device: cpu"
        )
    return torch.device("cuda")
