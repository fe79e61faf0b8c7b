"""Values of a graph in float64, compiled: what is computed while rows are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numba import njit

from lanline.networks.structure.graph import BINARY, UNARY, Graph

BLOCK = 128  # rows at once: all that lies between two nodes stays in the cache
OPS = {op: number for number, op in enumerate(("input", "mix", *UNARY, *BINARY))}
_INPUT, _MIX, _ABS, _EXP, _LOG, _NEG, _RELU, _TANH, _ADD, _DIV, _MAX, _MIN, _MUL, _SUB = range(len(OPS))


def evaluate(graph: Graph, x: np.ndarray, outputs: Sequence[int]) -> np.ndarray:
    """The nodes ``outputs``, of width 1, for raw inputs ``x`` (n, D): (n, outputs) in float64."""
    return _run(np.ascontiguousarray(x, dtype=np.float32), *_program(graph, tuple(outputs)))


@lru_cache
def _program(graph: Graph, outputs: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """What `_run` needs, with places in a workspace instead of nodes.

    Places are used again once nobody needs what lies there, those of constants never.

    Returns:
        Steps (s, 8): operation; place and width of the result, and of both arguments; where in ``numbers`` those of the
        node begin. Then the workspace at the start (places, BLOCK), ``numbers``, and the places of the outputs.
    """
    nodes = graph.nodes
    last = {a: i for i, node in enumerate(nodes) for a in node.arguments} | dict.fromkeys(outputs, len(nodes))
    start: list[float] = []
    numbers: list[float] = []
    place: dict[int, int] = {}
    free: dict[int, list[int]] = {}
    steps = []
    for i, node in enumerate(nodes):
        if node.op == "constant":
            place[i] = len(start)
            start += node.numbers
    for i, node in enumerate(nodes):
        if node.op == "constant":
            continue
        if spare := free.get(node.width):
            place[i] = spare.pop()
        else:
            place[i] = len(start)
            start += [0.0] * node.width
        first, *rest = node.arguments or (i,)
        second = rest[0] if rest else first
        widths = nodes[first].width, nodes[second].width
        arguments = place[first], widths[0], place[second], widths[1]
        steps.append((OPS[node.op], place[i], node.width, *arguments, len(numbers)))
        if node.op in ("input", "mix"):
            numbers += node.numbers
        for a in set(node.arguments):
            if last[a] == i and nodes[a].op != "constant":
                free.setdefault(nodes[a].width, []).append(place[a])
    work = np.repeat(np.array(start)[:, None], BLOCK, axis=1)
    return np.array(steps), work, np.array([*numbers, 0.0]), np.array([place[i] for i in outputs])


@njit(cache=True, nogil=True, error_model="numpy")
def _run(x, steps, initial, numbers, outputs):
    n, n_inputs = x.shape
    result = np.empty((n, len(outputs)))
    work, columns = initial.copy(), np.zeros((n_inputs, BLOCK))
    for begin in range(0, n, BLOCK):
        rows = min(BLOCK, n - begin)
        for i in range(rows):
            for j in range(n_inputs):
                columns[j, i] = x[begin + i, j]
        for s in range(len(steps)):
            op, to, width, first, first_width, second, second_width, at = steps[s]
            for k in range(width):
                if op == _INPUT:
                    _combine(columns, numbers[at : at + n_inputs], work[to + k])
                elif op == _MIX:
                    row = numbers[at + k * first_width : at + (k + 1) * first_width]
                    _combine(work[first : first + first_width], row, work[to + k])
                else:
                    a = work[first + (k if first_width > 1 else 0)]
                    _compute(op, a, work[second + (k if second_width > 1 else 0)], work[to + k])
        for j in range(len(outputs)):
            for i in range(rows):
                result[begin + i, j] = work[outputs[j], i]
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(values, numbers, out):
    out[:] = 0.0
    for j in range(len(numbers)):
        if numbers[j] != 0.0:
            for i in range(BLOCK):
                out[i] += numbers[j] * values[j, i]


@njit(cache=True, nogil=True, error_model="numpy")
def _compute(op, a, b, out):
    # One loop for each: the compiler makes vector instructions of them.
    if op == _ADD:
        for i in range(BLOCK):
            out[i] = a[i] + b[i]
    elif op == _SUB:
        for i in range(BLOCK):
            out[i] = a[i] - b[i]
    elif op == _MUL:
        for i in range(BLOCK):
            out[i] = a[i] * b[i]
    elif op == _DIV:
        for i in range(BLOCK):
            out[i] = a[i] / b[i]
    elif op == _MAX:
        for i in range(BLOCK):
            out[i] = a[i] if a[i] > b[i] else b[i]
    elif op == _MIN:
        for i in range(BLOCK):
            out[i] = a[i] if a[i] < b[i] else b[i]
    elif op == _EXP:
        for i in range(BLOCK):
            out[i] = math.exp(a[i])
    elif op == _LOG:
        for i in range(BLOCK):
            out[i] = math.log(a[i])
    elif op == _TANH:
        for i in range(BLOCK):
            out[i] = math.tanh(a[i])
    elif op == _ABS:
        for i in range(BLOCK):
            out[i] = abs(a[i])
    elif op == _NEG:
        for i in range(BLOCK):
            out[i] = -a[i]
    elif op == _RELU:
        for i in range(BLOCK):
            out[i] = a[i] if a[i] > 0.0 else 0.0
