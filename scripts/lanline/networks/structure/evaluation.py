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
    """Steps (s, 7) as numbers of: operation, place and width of the result, place and width of both arguments, beginning
    in ``numbers``; the workspace as it is at the start (places, BLOCK); ``numbers``; and places of the outputs.

    Places are used again once nobody needs what lies there, those of constants never.
    """
    values = {i: np.array(node.numbers) for i, node in enumerate(graph.nodes) if node.op == "constant"}
    last = {a: i for i, node in enumerate(graph.nodes) for a in node.arguments} | dict.fromkeys(outputs, len(graph.nodes))
    place: dict[int, int] = {}
    rows, numbers, steps = [], [], []
    for i, value in values.items():
        place[i] = len(rows)
        rows += value.tolist()
    free: dict[int, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if i in values:
            continue
        gone = [a for a in set(node.arguments) if last[a] == i and a not in values]
        if spare := free.get(node.width):
            place[i] = spare.pop()
        else:
            place[i] = len(rows)
            rows += [0.0] * node.width
        for a in gone:
            free.setdefault(graph.nodes[a].width, []).append(place[a])
        first, second = (*node.arguments, *node.arguments, i, i)[:2] if len(node.arguments) != 2 else node.arguments
        widths = graph.nodes[first].width, graph.nodes[second].width
        steps.append((OPS[node.op], place[i], node.width, place[first], widths[0], place[second], widths[1], len(numbers)))
        numbers += node.numbers
    work = np.repeat(np.array(rows)[:, None], BLOCK, axis=1)
    return np.array(steps), work, np.array([*numbers, 0.0]), np.array([place[i] for i in outputs])


@njit(cache=True, nogil=True, error_model="numpy")
def _run(x, steps, initial, numbers, outputs):
    n, n_inputs = x.shape
    result = np.empty((n, len(outputs)))
    work = initial.copy()
    columns = np.zeros((n_inputs, BLOCK))
    for begin in range(0, n, BLOCK):
        rows = min(BLOCK, n - begin)
        for i in range(rows):
            for j in range(n_inputs):
                columns[j, i] = x[begin + i, j]
        for s in range(len(steps)):
            op, to, width, first, first_width, second, second_width, at = steps[s]
            for k in range(width):
                out = work[to + k]
                a = work[first + (k if first_width > 1 else 0)]
                b = work[second + (k if second_width > 1 else 0)]
                if op == _INPUT or op == _MIX:
                    size = n_inputs if op == _INPUT else first_width
                    out[:] = 0.0
                    for j in range(size):
                        number = numbers[at + k * size + j]
                        if number != 0.0:
                            source = columns[j] if op == _INPUT else work[first + j]
                            for i in range(BLOCK):
                                out[i] += number * source[i]
                elif op == _ADD:
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
                else:
                    for i in range(BLOCK):
                        out[i] = a[i] if a[i] > 0.0 else 0.0
        for j in range(len(outputs)):
            for i in range(rows):
                result[begin + i, j] = work[outputs[j], i]
    return result
