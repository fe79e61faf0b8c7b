"""What a model's family says: features of its inputs, and a leading term of its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lanline.models import Model
from lanline.networks.structure.graph import Builder, Value


@dataclass(frozen=True)
class Terms:
    """Features by name, each of width 1, and the leading term of each output of the network; none: zero."""

    features: Mapping[str, Value]
    leading: tuple[Value, ...] = ()


class Inputs:
    """The raw inputs of a network of ``model``, kept within a range in which nothing overflows.

    Parameters are clipped to their bounds widened by the bounds' width on either side: far outside, a leading term no
    longer changes with them.
    """

    def __init__(self, model: Model, columns: tuple[str, ...]):
        self.model = model
        self.builder = Builder(columns)

    def __contains__(self, name: str) -> bool:
        return name in self.model.params

    def param(self, name: str) -> Value:
        low, high = self.range_of(name)
        return self.builder.input(name).at_least(2 * low - high).at_most(2 * high - low)

    def range_of(self, name: str) -> tuple[float, float]:
        """Lower and upper bound; of one that is another parameter, that one's."""
        low, high = self.model.bounds[name]
        return float(low), self.range_of(high)[1] if isinstance(high, str) else float(high)

    def choice(self) -> Value:
        """Choices -1 and 1; other codes count as the nearest number between them."""
        return self.builder.input("choice").at_least(-1.0).at_most(1.0)

    def constant(self, number: float) -> Value:
        return self.builder.constant(number)
