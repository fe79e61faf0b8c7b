"""What one thread does with its share of every batch, in PyTorch: forward pass, backward pass, its part of the update.

Written out for the one architecture there is, on buffers that are made once: autograd, allocation and the optimizer's
bookkeeping would take as long as the arithmetic. All of it is TorchScript, which runs without Python's lock, so that
threads do not wait for each other between the two meetings of a step. Arrays are (units, rows): the CPU's matrix
products are up to seven times as fast that way where a layer has few inputs. A layer's bias is the last row of its
weights, for an input that is always one: no operations of its own.
"""

import inspect
import platform
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

PATIENCE = 1_000  # looks at another share's flag, a fifth of a millisecond, before the core is left to others
NEVER_AGAIN = 2**62  # number of the meeting that a share which failed has come to

P = ParamSpec("P")
R = TypeVar("R")


class Network(NamedTuple):
    """Views of the parameters: ``layers`` (out, in + 1) and, without the biases, ``back`` (in, out)."""

    layers: list[Tensor]
    back: list[Tensor]
    names: list[str]


class Buffers(NamedTuple):
    """For n rows: sums z and activations h of the hidden layers (units, n), h with the row of ones, room for the
    gradient at h, and the number -1."""

    sums: list[Tensor]
    outs: list[Tensor]
    hidden: list[Tensor]
    slopes: list[Tensor]
    minus_one: Tensor


class Part(NamedTuple):
    """What a share brings up to date: from ``start`` to ``stop`` of the flat parameters; views of all of this part.

    ``gradients`` are the shares' own, whole if the gradient is clipped by its norm, else this part of them.
    """

    parameters: Tensor
    first: Tensor
    second: Tensor
    scratch: Tensor
    gradients: list[Tensor]
    total: Tensor
    start: int
    stop: int


class Rule(NamedTuple):
    """How parameters are updated; ``clip`` is 0 where the gradient is not clipped."""

    optimizer: str
    momentum: float
    weight_decay: float
    clip: float
    beta1: float
    beta2: float
    epsilon: float


class Meeting(NamedTuple):
    """Where the shares wait for each other, as share number ``me`` sees it: see `meetings`."""

    flags: list[Tensor]
    me: int
    patience: int
    barrier: int


def _script(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` in TorchScript.

    Where torch has none (it is deprecated, and not for Python 3.14), the function itself: same numbers, slower.
    """
    if not hasattr(torch.jit, "script") or sys.version_info >= (3, 14):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


def _python(function: Callable[P, R]) -> Callable[P, R]:
    """A function that TorchScript calls in Python."""
    return torch.jit.ignore(function) if hasattr(torch.jit, "ignore") else function


# --- where shares meet ---
_BARRIERS: WeakValueDictionary[int, threading.Barrier] = WeakValueDictionary()


@_python
def _leave_the_core() -> None:
    time.sleep(5e-5)


@_python
def _wait_at(barrier: int) -> None:
    with suppress(threading.BrokenBarrierError):  # another share failed, and tells why
        _BARRIERS[barrier].wait()


@_script
def _meet(meeting: Meeting, number: int) -> None:
    """Wait until all shares have come to meeting ``number``."""
    if len(meeting.flags) == 0:
        _wait_at(meeting.barrier)
    else:
        meeting.flags[meeting.me].fill_(number)
        for flag in meeting.flags:
            looks = 0
            while int(flag) < number:
                looks += 1
                if looks > meeting.patience:
                    _leave_the_core()


# --- the passes ---
@_script
def forward(x: Tensor, network: Network, buffers: Buffers) -> Tensor:
    """Outputs (K, n) for inputs (D + 1, n); leaves sums z (2 z for tanh) and activations h in the buffers."""
    for i in range(len(network.names)):
        z, h, name = buffers.sums[i], buffers.outs[i], network.names[i]
        torch.addmm(z, network.layers[i], x, beta=0.0, alpha=2.0 if name == "tanh" else 1.0, out=z)
        if name == "tanh":
            # 2 sigmoid(2 z) - 1: on a CPU without AVX-512 torch's sigmoid is three times as fast as its tanh.
            torch.sigmoid(z, out=h)
            torch.add(buffers.minus_one, h, alpha=2.0, out=h)
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
        x = buffers.hidden[i]
    return torch.mm(network.layers[-1], x)


@_script
def _through_activation(name: str, g: Tensor, z: Tensor, h: Tensor) -> None:
    """Turn the activations h = f(z) into the gradient at z, given the one at h."""
    if name == "tanh":
        torch.ops.aten.tanh_backward(g, h, grad_input=h)
    elif name == "relu":
        torch.ops.aten.threshold_backward(g, h, 0.0, grad_input=h)
    elif name == "sigmoid":
        torch.ops.aten.sigmoid_backward(g, h, grad_input=h)
    elif name == "softplus":
        torch.ops.aten.softplus_backward(g, z, 1.0, 20.0, grad_input=h)
    elif name == "gelu":
        torch.ops.aten.gelu_backward(g, z, grad_input=h)
    else:
        torch.ops.aten.elu_backward(g, 1.0, 1.0, 1.0, False, z, grad_input=h)


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
    n_rows: int,
    kind: str,
    delta: float,
    loss: Tensor,
    gradients: list[Tensor],
    keep: float,
    network: Network,
    buffers: Buffers,
) -> None:
    """Bring the ``gradients`` (in + 1, out) to ``keep`` times themselves plus what ``rows`` (D + 1 + K, n) add to the
    gradient of the mean loss of ``n_rows``; add to that loss."""
    n_inputs = network.layers[0].shape[1]
    x, y = rows[:n_inputs], rows[n_inputs:]
    g = _loss(kind, delta, forward(x, network, buffers), y, n_rows, loss)
    for below in range(len(network.names)):
        layer = len(network.names) - below
        torch.addmm(gradients[layer], buffers.hidden[layer - 1], g.t(), beta=keep, out=gradients[layer])
        slope = buffers.slopes[layer - 1]
        if len(g) == 1:
            torch.mul(network.back[layer], g, out=slope)
        else:
            torch.mm(network.back[layer], g, out=slope)
        g = buffers.outs[layer - 1]
        _through_activation(network.names[layer - 1], slope, buffers.sums[layer - 1], g)
    torch.addmm(gradients[0], x, g.t(), beta=keep, out=gradients[0])


# --- the update ---
@_script
def _update(part: Part, rule: Rule, rate: float, size: float, root: float) -> None:
    """One step for a part of the parameters; semantics of torch.optim."""
    g = part.gradients[0]
    if len(part.gradients) > 1:
        g = torch.add(part.gradients[0], part.gradients[1], out=part.total)
        for i in range(2, len(part.gradients)):
            g.add_(part.gradients[i])
    if rule.clip > 0.0:
        g.mul_((rule.clip / torch.linalg.vector_norm(g)).clamp_(max=1.0))
        g = g[part.start : part.stop]
    if rule.weight_decay > 0.0 and rule.optimizer == "adamw":
        part.parameters.mul_(1 - rate * rule.weight_decay)
    elif rule.weight_decay > 0.0:
        g.add_(part.parameters, alpha=rule.weight_decay)
    if rule.optimizer == "sgd":
        part.first.mul_(rule.momentum).add_(g)
        part.parameters.add_(part.first, alpha=-rate)
    else:
        part.first.lerp_(g, 1 - rule.beta1)
        part.second.mul_(rule.beta2).addcmul_(g, g, value=1 - rule.beta2)
        # size * m / (sqrt(v) / root + epsilon), with one operation less
        torch.sqrt(part.second, out=part.scratch)
        part.parameters.addcdiv_(part.first, part.scratch.add_(rule.epsilon * root), value=-size * root)


@_script
def steps(
    pieces: list[list[Tensor]],
    buffers: list[Buffers],
    n_rows: int,
    kind: str,
    delta: float,
    losses: list[Tensor],
    gradients: list[Tensor],
    network: Network,
    part: Part,
    rule: Rule,
    rates: list[float],
    sizes: list[float],
    roots: list[float],
    meeting: Meeting,
) -> None:
    """A share's work in the steps of a block, one for each batch of ``n_rows`` rows.

    Args:
        pieces: the share's rows of each batch, (D + 1 + K, n), in pieces that fit a core's cache: first all batches'
            first piece, then all batches' second one.
        buffers: of each piece.
        losses: of each batch, to be added to.
        gradients: the share's own, layer by layer.
    """
    for i in range(len(losses)):
        for j in range(len(pieces)):
            keep = 0.0 if j == 0 else 1.0
            _gradient(pieces[j][i], n_rows, kind, delta, losses[i], gradients, keep, network, buffers[j])
        _meet(meeting, 2 * i + 1)
        _update(part, rule, rates[i], sizes[i], roots[i])
        _meet(meeting, 2 * i + 2)


def meetings(barrier: threading.Barrier) -> list[Meeting]:
    """Where the shares wait for each other in one block, for each of them.

    They look at each other's flags and do not sleep: to be woken takes a tenth of a millisecond, a tenth of a batch's
    time. That is right where other cores see stores in the order they were made in (x86), and quick where the looks
    are TorchScript. Elsewhere they meet at the barrier.
    """
    n, flags = barrier.parties, []
    if platform.machine() in ("x86_64", "AMD64") and not inspect.isfunction(steps):
        flags = [torch.zeros((), dtype=torch.int64) for _ in range(n)]
    _BARRIERS[id(barrier)] = barrier
    return [Meeting(flags, me, PATIENCE, id(barrier)) for me in range(n)]


def give_up(meeting: Meeting) -> None:
    """Let no other share wait for one that failed."""
    if meeting.flags:
        meeting.flags[meeting.me].fill_(NEVER_AGAIN)
    if (barrier := _BARRIERS.get(meeting.barrier)) is not None:
        barrier.abort()
