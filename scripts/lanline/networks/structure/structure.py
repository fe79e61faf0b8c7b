"""The structure of a network: which nodes of a graph are features, and which one is the leading term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lanline.models import Model
from lanline.networks.structure import one_particle, variability
from lanline.networks.structure.graph import Graph
from lanline.networks.structure.terms import Terms


class Family(NamedTuple):
    """Models that share features and a leading term, and the type of network that has them."""

    network_type: str
    covers: Callable[[Model], bool]
    terms: Callable[[Model, tuple[str, ...]], Terms]


FAMILIES = (
    Family("lan", one_particle.covers, one_particle.terms),
    Family("lan", variability.covers, variability.terms),
)


@dataclass(frozen=True)
class Structure:
    """Features and leading terms as nodes of a graph over the raw inputs.

    Attributes:
        graph: the nodes.
        features: names of the layers' inputs.
        feature_nodes: the node of each of them.
        leading: the node of each output's leading term, or none.
    """

    graph: Graph
    features: tuple[str, ...]
    feature_nodes: tuple[int, ...]
    leading: tuple[int, ...]

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, F) in float32 and leading terms (n, K) in float64 of raw inputs ``x`` (n, D); zero if there is
        none, K = 1."""
        from lanline.networks.structure.evaluation import evaluate  # numba takes half a second

        values = evaluate(self.graph, x, [*self.feature_nodes, *self.leading])
        n = len(self.feature_nodes)
        return values[:, :n].astype(np.float32), values[:, n:] if self.leading else np.zeros((len(x), 1))

    def to_json(self) -> dict[str, Any]:
        return {
            "features": list(self.features),
            "feature_nodes": list(self.feature_nodes),
            "leading": list(self.leading),
            "nodes": self.graph.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Structure:
        numbers = (tuple(values[key]) for key in ("features", "feature_nodes", "leading"))
        return cls(Graph.from_json(values["nodes"]), *numbers)


def structure_of(model: Model, network_type: str, columns: tuple[str, ...]) -> Structure | None:
    """The structure of ``model`` for a network whose raw inputs are ``columns``; None if there is none."""
    for family in FAMILIES:
        if family.network_type == network_type and family.covers(model):
            terms = family.terms(model, columns)
            builder = next(iter(terms.features.values())).builder
            graph, places = builder.graph([*terms.features.values(), *terms.leading])
            n = len(terms.features)
            return Structure(graph, tuple(terms.features), tuple(places[:n]), tuple(places[n:]))
    return None
