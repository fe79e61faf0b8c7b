"""Training in PyTorch; the loop meets torch here, and here alone.

On the CPU each thread takes its share of a batch through the whole network. That needs two meetings of the threads a
step; threads inside each operation meet thirty times and wait for each other wherever another process takes a core.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    Window,
    adam_corrections,
    flatten,
    layer_slices,
)
from lanline.training.torch_passes import (
    Buffers,
    Meeting,
    Network,
    Part,
    Rule,
    forward,
    give_up,
    meetings,
    steps,
)

PIECE_ROWS = 2048  # rows that go through the network at once on a CPU: fewer are slower, more need memory only


class TorchBackend:
    """A network in training in PyTorch; see `lanline.training.backend.Backend`."""

    def __init__(self, spec: NetworkSpec, settings: Training, weights: Weights, threads: int):
        _set_up_thread()
        self._device = _device(settings.device)
        self._step = 0
        self._parameters = torch.from_numpy(flatten(weights)).to(self._device)
        self._first, self._second = torch.zeros_like(self._parameters), torch.zeros_like(self._parameters)
        on_cpu = self._device.type == "cpu"
        n_shares = threads if on_cpu else 1
        self._piece_rows = PIECE_ROWS if on_cpu else sys.maxsize
        gradients = torch.zeros(n_shares, len(self._parameters), device=self._device)
        vectors = self._parameters, self._first, self._second
        self._shares = [_Share(spec, settings, me, *vectors, gradients) for me in range(n_shares)]
        self._barrier = threading.Barrier(n_shares)
        self._pool = ThreadPoolExecutor(n_shares, initializer=_set_up_thread)
        self._window = Window(partial(torch.as_tensor, device=self._device))

    def run_block(self, rows: np.ndarray, index: np.ndarray, rates: np.ndarray) -> Callable[[], np.ndarray]:
        sizes, roots = adam_corrections(self._step, rates.astype(np.float64))
        numbers = rates.tolist(), sizes.tolist(), roots.tolist()
        n = len(self._shares)
        pieces = -(-index.shape[1] // (n * self._piece_rows))
        bounds = list(pairwise(np.linspace(0, index.shape[1], n * pieces + 1).astype(int).tolist()))
        block = self._window.of(rows), torch.from_numpy(index).to(self._device)
        places = meetings(self._barrier)
        try:
            futures = [
                self._pool.submit(share.steps, *block, bounds[me * pieces : (me + 1) * pieces], numbers, places[me])
                for me, share in enumerate(self._shares)
            ]
        except BaseException:  # the shares that were begun do not wait for the others
            for place in places:
                give_up(place)
            raise
        self._step += len(index)
        return lambda: torch.stack([future.result() for future in futures]).sum(0).cpu().numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        n, parts = len(self._shares), -(-len(x) // PIECE_ROWS)
        filled = np.zeros((parts * PIECE_ROWS, x.shape[1]), np.float32)  # one size of buffers serves all pieces
        filled[: len(x)] = x
        pieces = _with_ones(torch.from_numpy(filled).view(parts, PIECE_ROWS, -1)).unbind()
        outputs = self._pool.map(_Share.predict, self._shares, [pieces[i::n] for i in range(n)])
        ordered: list[Tensor] = [torch.empty(0, 0)] * parts
        for i, part in enumerate(outputs):
            ordered[i::n] = part
        joined = torch.cat(ordered, 1)[:, : len(x)]
        return (joined[0] if len(joined) == 1 else joined.t()).numpy()

    def state(self) -> dict[str, np.ndarray]:
        arrays = {"parameters": self._parameters, "first_moment": self._first, "second_moment": self._second}
        return {name: array.cpu().numpy().copy() for name, array in arrays.items()}

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        self._parameters.copy_(torch.from_numpy(state["parameters"]))
        self._first.copy_(torch.from_numpy(state["first_moment"]))
        self._second.copy_(torch.from_numpy(state["second_moment"]))
        self._step = step
        self._window.leave()


class _Share:
    """One thread's part of every batch and of the parameters, with buffers of its own."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: Training,
        me: int,
        parameters: Tensor,
        first: Tensor,
        second: Tensor,
        gradients: Tensor,
    ):
        self._spec, self._device = spec, parameters.device
        self._loss = "cross-entropy" if spec.gives_probabilities else settings.loss, settings.huber_delta
        layers = _layers(spec, parameters)
        self._network = Network([layer.t() for layer in layers], [layer[:-1] for layer in layers], [*spec.activations])
        self._gradients = _layers(spec, gradients[me])
        clip = settings.gradient_clip or 0.0
        self._rule = Rule(
            settings.optimizer, settings.momentum, settings.weight_decay, clip, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON
        )
        start, stop = np.linspace(0, len(parameters), len(gradients) + 1).astype(int)[me : me + 2].tolist()
        mine = slice(start, stop)
        summed = list((gradients if clip else gradients[:, mine]).unbind())
        self._part = Part(
            parameters[mine], first[mine], second[mine], torch.zeros_like(first[mine]), summed,
            torch.zeros_like(summed[0]), start, stop,
        )  # fmt: skip
        self._buffers: dict[int, Buffers] = {}

    def predict(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (K, n) for each piece (D + 1, n)."""
        return [
            forward(piece.to(self._device), self._network, self._buffers_for(piece.shape[1])).cpu() for piece in pieces
        ]

    def steps(
        self,
        rows: Tensor,
        index: Tensor,
        bounds: list[tuple[int, int]],
        numbers: tuple[list[float], list[float], list[float]],
        meeting: Meeting,
    ) -> Tensor:
        """Take the share's part in a step for each batch ``index`` (k, b) of ``rows``: what lies within the ``bounds``
        of its pieces. Gives what these add to the mean loss (k,) of each batch."""
        try:
            losses = torch.zeros(len(index), device=self._device)
            pieces = [_columns(rows, index[:, start:stop], len(self._spec.features)) for start, stop in bounds]
            buffers = [self._buffers_for(stop - start) for start, stop in bounds]
            batch = index.shape[1], *self._loss, list(losses.unbind())
            steps(pieces, buffers, *batch, self._gradients, self._network, self._part, self._rule, *numbers, meeting)
            return losses
        except BaseException:
            give_up(meeting)
            raise

    def _buffers_for(self, n: int) -> Buffers:
        """One buffer for z and h where z need not be kept, and one for all gradients: they come one after the other."""
        if n not in self._buffers:
            hidden = [torch.ones(units + 1, n, device=self._device) for units in self._spec.layers[:-1]]
            outs = [h[:-1] for h in hidden]
            sums = [
                torch.empty_like(h) if name in ("softplus", "gelu", "elu") else h
                for h, name in zip(outs, self._spec.activations, strict=True)
            ]
            slope = torch.empty(max(self._spec.layers[:-1]), n, device=self._device)
            slopes = [slope[: len(h)] for h in outs]
            self._buffers[n] = Buffers(sums, outs, hidden, slopes, torch.tensor(-1.0, device=self._device))
        return self._buffers[n]


def _set_up_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal numbers in tails make products many times slower


def _columns(rows: Tensor, index: Tensor, n_inputs: int) -> list[Tensor]:
    """Columns (D + 1 + K, n) of the rows (D + K) that each line of ``index`` (k, n) names."""
    picked = rows.index_select(0, index.reshape(-1)).view(*index.shape, rows.shape[1])
    x, y = picked[..., :n_inputs], picked[..., n_inputs:]
    return list(_with_ones(x, y).contiguous().unbind())


def _with_ones(x: Tensor, *labels: Tensor) -> Tensor:
    """Columns (..., D + 1, n) of inputs (..., n, D), with an input that is always one, and of what comes after it."""
    return torch.cat([x, torch.ones_like(x[..., :1]), *labels], -1).transpose(-1, -2)


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
