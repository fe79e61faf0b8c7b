"""Small expression graphs over the raw inputs of a network.

A graph is written once, with Python's operators on `Value`s, and read by two interpreters: `evaluation`, in float64,
and `onnx_nodes`. A value has a width: it stands for that many numbers a row. Widths are equal or one of them is 1, as
in broadcasting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Operations of one and of two arguments, and what numpy calls them.
UNARY = {"abs": "abs", "exp": "exp", "log": "log", "neg": "negative", "relu": "maximum", "tanh": "tanh"}
BINARY = {"add": "add", "div": "divide", "max": "maximum", "min": "minimum", "mul": "multiply", "sub": "subtract"}


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: a name of `UNARY` or `BINARY`; ``input``, the combination ``numbers`` (D,) of the raw inputs;
            ``constant``, ``numbers`` (w,); or ``mix``, the matrix ``numbers`` (w_out, w_in) times its argument.
        arguments: numbers of the nodes that it works on, all smaller than its own.
        numbers: see ``op``; rows of a matrix one after the other.
        width: numbers that it gives for each row.
    """

    op: str
    arguments: tuple[int, ...]
    numbers: tuple[float, ...]
    width: int


@dataclass(frozen=True)
class Graph:
    """Nodes, each after its arguments."""

    nodes: tuple[Node, ...]

    def to_json(self) -> list[list[Any]]:
        return [[node.op, list(node.arguments), list(node.numbers), node.width] for node in self.nodes]

    @classmethod
    def from_json(cls, nodes: list[list[Any]]) -> Graph:
        return cls(tuple(Node(op, tuple(a), tuple(numbers), width) for op, a, numbers, width in nodes))


class Builder:
    """Collects nodes; what is written twice becomes one node, and what has no input a constant."""

    def __init__(self, inputs: Sequence[str]):
        self.inputs = tuple(inputs)
        self._nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}

    def node(self, op: str, *arguments: Value, numbers: Sequence[float] = (), width: int) -> Value:
        node = Node(op, tuple(value.number for value in arguments), tuple(map(float, numbers)), width)
        given = [self._nodes[value.number] for value in arguments]
        if given and all(argument.op == "constant" for argument in given):
            return self.constant(compute(node, [compute(argument, (), ()) for argument in given], ())[:, 0])
        if node not in self._numbers:
            self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return Value(self, self._numbers[node], width)

    def combination(self, **coefficients: float) -> Value:
        """A combination of raw inputs by name; a difference of two is exact."""
        numbers = [coefficients.get(name, 0.0) for name in self.inputs]
        return self.node("input", numbers=numbers, width=1)

    def input(self, name: str) -> Value:
        return self.combination(**{name: 1.0})

    def constant(self, numbers: float | Sequence[float] | np.ndarray) -> Value:
        row = np.atleast_1d(np.asarray(numbers, float))
        return self.node("constant", numbers=row.tolist(), width=len(row))

    def graph(self, outputs: Sequence[Value]) -> tuple[Graph, list[int]]:
        """The nodes that ``outputs`` need, and where these are among them."""
        needed: set[int] = set()
        waiting = [value.number for value in outputs]
        while waiting:
            number = waiting.pop()
            if number not in needed:
                needed.add(number)
                waiting += self._nodes[number].arguments
        place = {number: i for i, number in enumerate(sorted(needed))}
        nodes = [self._nodes[number] for number in sorted(needed)]
        moved = [Node(n.op, tuple(place[a] for a in n.arguments), n.numbers, n.width) for n in nodes]
        return Graph(tuple(moved)), [place[value.number] for value in outputs]


@dataclass(frozen=True)
class Value:
    """A node in the making: ``width`` numbers for each row."""

    builder: Builder = field(repr=False)
    number: int
    width: int

    def _with(self, op: str, other: Value | float, *, swapped: bool = False) -> Value:
        value = other if isinstance(other, Value) else self.builder.constant(other)
        pair = (value, self) if swapped else (self, value)
        return self.builder.node(op, *pair, width=max(self.width, value.width))

    def _of(self, op: str) -> Value:
        return self.builder.node(op, self, width=self.width)

    def __add__(self, other: Value | float) -> Value:
        return self if isinstance(other, (int, float)) and other == 0 else self._with("add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._with("sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._with("mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._with("div", other) if isinstance(other, Value) else self._with("mul", 1 / other)

    def __rsub__(self, other: float) -> Value:
        return self._with("sub", other, swapped=True)

    def __rtruediv__(self, other: float) -> Value:
        return self._with("div", other, swapped=True)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Value:
        return self._of("neg")

    def exp(self) -> Value:
        return self._of("exp")

    def log(self) -> Value:
        return self._of("log")

    def tanh(self) -> Value:
        return self._of("tanh")

    def abs(self) -> Value:
        return self._of("abs")

    def relu(self) -> Value:
        return self._of("relu")

    def at_least(self, other: Value | float) -> Value:
        return self._with("max", other)

    def at_most(self, other: Value | float) -> Value:
        return self._with("min", other)

    def mix(self, matrix: np.ndarray) -> Value:
        """Combinations of the numbers of each row: ``matrix`` is (w_out, w_in)."""
        matrix = np.asarray(matrix, float)
        return self.builder.node("mix", self, numbers=matrix.ravel().tolist(), width=len(matrix))

    def sum(self) -> Value:
        return self.mix(np.ones((1, self.width)))


def compute(node: Node, arguments: Sequence[Any], columns: Any, library: Any = np) -> Any:
    """The value (w, n) of a node, from those of its arguments and the raw inputs (D, n); ``library`` is numpy, or what
    has functions of the same names."""
    if node.op == "relu":
        return library.maximum(arguments[0], 0.0)
    if node.op in UNARY or node.op in BINARY:
        return getattr(library, (UNARY | BINARY)[node.op])(*arguments)
    numbers = np.array(node.numbers)
    if node.op == "constant":
        return numbers[:, None]
    return numbers[None] @ columns if node.op == "input" else numbers.reshape(node.width, -1) @ arguments[0]
