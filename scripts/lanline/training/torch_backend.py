"""Training in PyTorch; the loop meets torch nowhere else.

The forward and backward passes are written out for the one architecture there is, on buffers that are made
once: autograd, allocation and the optimizer's bookkeeping would take as long as the arithmetic. Arrays are
(units, rows): the CPU's matrix products are up to seven times as fast that way where a layer has few inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

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

aten = torch.ops.aten
Layers = list[tuple[Tensor, Tensor]]  # (in, out) weights and (out,) biases


class Activation(NamedTuple):
    """Forward writes f(z) into out; backward turns the gradient g at f(z) into the one at z, in place."""

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]
    scale: float = 1.0  # forward gets scale * z


def _tanh(doubled: Tensor, out: Tensor) -> None:
    # 2 sigmoid(2 z) - 1: on a CPU without AVX-512 torch's sigmoid is three times as fast as its tanh.
    torch.sigmoid(doubled, out=out)
    torch.add(_minus_one(out.device), out, alpha=2, out=out)


def _minus_one(device: torch.device) -> Tensor:
    return torch.full((), -1.0, device=device)


ACTIVATIONS = {
    "tanh": Activation(_tanh, lambda g, z, h: aten.tanh_backward.grad_input(g, h, grad_input=g), scale=2.0),
    "relu": Activation(
        lambda z, out: torch.clamp(z, min=0, out=out),
        lambda g, z, h: aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
    ),
    "sigmoid": Activation(
        lambda z, out: torch.sigmoid(z, out=out),
        lambda g, z, h: aten.sigmoid_backward.grad_input(g, h, grad_input=g),
    ),
    "softplus": Activation(
        lambda z, out: aten.softplus.out(z, out=out),
        lambda g, z, h: aten.softplus_backward.grad_input(g, z, 1, 20, grad_input=g),
    ),
    "gelu": Activation(
        lambda z, out: aten.gelu.out(z, out=out),
        lambda g, z, h: aten.gelu_backward.grad_input(g, z, grad_input=g),
    ),
    "elu": Activation(
        lambda z, out: aten.elu.out(z, out=out),
        lambda g, z, h: aten.elu_backward.grad_input(g, 1, 1, 1, False, z, grad_input=g),
    ),
}


class TorchBackend:
    """A network in training in PyTorch; see `lanline.training.backend.Backend`.

    On the CPU each thread takes its share of a batch through the whole network. That needs one meeting of the
    threads a step; threads inside each operation meet thirty times and wait for each other wherever another
    process takes a core.
    """

    @torch.no_grad()
    def __init__(self, spec: NetworkSpec, settings: Training, weights: Weights, threads: int):
        _set_up_thread()
        self._device = _device(settings.device)
        self._settings = settings
        self._step = 0
        self._parameters = torch.from_numpy(flatten(weights)).to(self._device)
        self._first, self._second, self._scratch = (torch.zeros_like(self._parameters) for _ in range(3))
        on_cpu = self._device.type == "cpu"
        self._shares = [_Share(spec, settings, self._parameters) for _ in range(threads if on_cpu else 1)]
        self._piece_rows = PIECE_ROWS if on_cpu else None
        self._pool = ThreadPoolExecutor(len(self._shares), initializer=_set_up_thread)

    @torch.no_grad()
    def run_block(self, rows: np.ndarray, rates: np.ndarray) -> np.ndarray:
        n_rows = rows.shape[1]
        block = torch.from_numpy(rows).to(self._device).transpose(1, 2)
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
        if self._piece_rows is not None:
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

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        rows = PIECE_ROWS if self._device.type == "cpu" else len(x)
        pieces = [torch.from_numpy(x[start : start + rows].T.copy()) for start in range(0, len(x), rows)]
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
    """Forward and backward pass over some rows of a batch, in buffers of its own."""

    def __init__(self, spec: NetworkSpec, settings: Training, parameters: Tensor):
        self.gradient, self._further = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._spec, self._settings, self._device = spec, settings, parameters.device
        self._layers = _views(spec, parameters)
        self._gradients, self._further_gradients = _views(spec, self.gradient), _views(spec, self._further)
        self._activations = [ACTIVATIONS[name] for name in spec.activations]
        self._buffers: dict[int, tuple[list[Tensor], list[Tensor]]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (K, n) for inputs (D, n); leaves the scaled sums z and activations h in the buffers."""
        sums, outs = self._buffers_for(x.shape[1])
        for activation, (weight, bias), z, h in zip(self._activations, self._layers, sums, outs, strict=False):
            scale = activation.scale
            torch.addmm(bias[:, None], weight.t(), x, beta=scale, alpha=scale, out=z)
            activation.forward(z, h)
            x = h
        weight, bias = self._layers[-1]
        return torch.addmm(bias[:, None], weight.t(), x)

    @torch.no_grad()
    def predict(self, pieces: list[Tensor]) -> list[Tensor]:
        """Outputs (K, n) for each piece (D, n)."""
        return [self.forward(piece.to(self._device)).cpu() for piece in pieces]

    @torch.no_grad()
    def gradient_of(self, pieces: list[Tensor], n_rows: int, loss: Tensor) -> None:
        """Leave what the pieces (D + L, n) add to the gradient of the mean loss of ``n_rows``, and to that loss."""
        self._gradient_of(pieces[0], n_rows, loss, self._gradients)
        for piece in pieces[1:]:
            self._gradient_of(piece, n_rows, loss, self._further_gradients)
            self.gradient.add_(self._further)

    def _gradient_of(self, rows: Tensor, n_rows: int, loss: Tensor, gradients: Layers) -> None:
        n_inputs = len(self._spec.inputs)
        x, y = rows[:n_inputs], rows[n_inputs:]
        sums, outs = self._buffers_for(x.shape[1])
        slope = self._loss(self.forward(x), y, n_rows, loss)
        weight_gradient, bias_gradient = gradients[-1]
        torch.mm(outs[-1], slope.t(), out=weight_gradient)
        torch.sum(slope, 1, out=bias_gradient)
        weight = self._layers[-1][0]
        g = torch.mul(weight, slope) if len(slope) == 1 else weight @ slope
        for layer in reversed(range(len(outs))):
            self._activations[layer].backward(g, sums[layer], outs[layer])
            weight_gradient, bias_gradient = gradients[layer]
            torch.mm(outs[layer - 1] if layer else x, g.t(), out=weight_gradient)
            torch.sum(g, 1, out=bias_gradient)
            if layer:
                g = self._layers[layer][0] @ g

    def _buffers_for(self, n: int) -> tuple[list[Tensor], list[Tensor]]:
        """Sums and activations of the hidden layers for ``n`` rows; one buffer where z need not be kept."""
        if n not in self._buffers:
            sums = [torch.empty(units, n, device=self._device) for units in self._spec.layers[:-1]]
            outs = [
                torch.empty_like(z) if name in ("softplus", "gelu", "elu") else z
                for z, name in zip(sums, self._spec.activations, strict=True)
            ]
            self._buffers[n] = sums, outs
        return self._buffers[n]

    def _loss(self, outputs: Tensor, y: Tensor, n_rows: int, loss: Tensor) -> Tensor:
        """Add the loss of the outputs (K, n) in a mean over ``n_rows``; give its derivative by each of them (K, n)."""
        if self._spec.gives_probabilities:
            return _cross_entropy(outputs, y, n_rows, loss)
        error = outputs.sub_(y)
        flat = error[0]
        if self._settings.loss == "mse":
            loss.add_(torch.dot(flat, flat), alpha=1 / n_rows)
            return error.mul_(2 / n_rows)
        delta = self._settings.huber_delta
        clipped = error.clamp(-delta, delta)
        loss.add_(torch.dot(clipped[0], flat.sub_(clipped[0], alpha=0.5)), alpha=1 / n_rows)
        return clipped.div_(n_rows)


def _cross_entropy(logits: Tensor, y: Tensor, n_rows: int, loss: Tensor) -> Tensor:
    """As `_Share._loss`: one logit has two categories, several have one each."""
    if len(logits) == 1:
        loss.add_(torch.sum(aten.softplus(logits)) - torch.dot(y[0], logits[0]), alpha=1 / n_rows)
        return logits.sigmoid_().sub_(y).div_(n_rows)
    logarithm = torch.log_softmax(logits, 0)
    loss.sub_(torch.sum(y * logarithm), alpha=1 / n_rows)
    return logarithm.exp_().sub_(y).div_(n_rows)


def _set_up_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal numbers in tails make products many times slower


def _views(spec: NetworkSpec, flat: Tensor) -> Layers:
    """Weights (in, out) and biases (out,) of each layer in a flat array."""
    slices = zip(layer_slices(spec), spec.shapes, strict=True)
    return [(flat[weight].view(n_in, n_out), flat[bias]) for (weight, bias), (n_out, n_in) in slices]


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "training.device is gpu, but PyTorch finds none: run on a machine with a GPU and a CUDA build of "
            "torch, or set device: cpu"
        )
    return torch.device("cuda")
