"""What a network is: its inputs, layers and output, and its forward pass in numpy.

Weights are float32 arrays by name: ``layer_0.weight`` (out, in), ``layer_0.bias`` (out,), and so on; the last
layer is the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erf, expit

from lanline.config import Network
from lanline.models import Model
from lanline.networks.structure import Structure, structure_of

Weights = dict[str, np.ndarray]

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": expit,
    "softplus": lambda z: np.logaddexp(z, 0),
    "gelu": lambda z: z * (0.5 + 0.5 * erf(z / np.sqrt(2))),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
}


@dataclass(frozen=True)
class NetworkSpec:
    """A fully connected network.

    What its outputs mean follows from its type. The output of a lan is the log-likelihood of rt and choice. All others
    give logits of probabilities: see `lanline.networks.heads`.

    Attributes:
        network_type: lan, cpn, opn or gonogo.
        model: name of the model.
        params: the model's parameters, in the order of the first input columns.
        inputs: names of all input columns.
        layers: units of each layer after the inputs; the last ones are the outputs.
        activations: one for each layer but the last.
        choices: the model's responses, as they are coded.
        structure: what the layers are given instead of the raw inputs, and what they add to; None: a raw network.
    """

    network_type: str
    model: str
    params: tuple[str, ...]
    inputs: tuple[str, ...]
    layers: tuple[int, ...]
    activations: tuple[str, ...]
    choices: tuple[int, ...] = ()  # networks of older versions do not say
    structure: Structure | None = None

    @property
    def gives_probabilities(self) -> bool:
        """Whether the outputs are logits of probabilities, rather than a log-likelihood."""
        return self.network_type != "lan"

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what the first layer is given."""
        return self.structure.features if self.structure else self.inputs

    @property
    def exported_inputs(self) -> tuple[str, ...]:
        """Columns that the exported network takes: a cpn is asked for the probability of one choice."""
        return (*self.inputs, "choice") if self.network_type == "cpn" else self.inputs

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each layer's weight matrix."""
        return list(zip(self.layers, (len(self.features), *self.layers[:-1]), strict=True))

    def to_json(self) -> dict[str, Any]:
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {**values, "structure": self.structure.to_json() if self.structure else None}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkSpec:
        structure = values.get("structure")
        given: dict[str, Any] = {key: tuple(old) if isinstance(old, list) else old for key, old in values.items()}
        return cls(**{**given, "structure": Structure.from_json(structure) if structure else None})

    def prepare(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the first layer is given for raw inputs ``x`` (n, D), float32 (n, F), and what the output is added to,
        float64 (n,)."""
        if self.structure is None:
            return x, np.zeros(len(x))
        features, leading = self.structure.apply(x)
        return features, leading[:, 0]


def make_spec(network: Network, model: Model) -> NetworkSpec:
    """The specification of ``network`` for ``model``."""
    inputs = (*model.params, "rt", "choice") if network.network_type == "lan" else model.params
    wanted = network.features == "auto"
    return NetworkSpec(
        choices=model.choices,
        network_type=network.network_type,
        model=model.name,
        params=model.params,
        inputs=inputs,
        structure=structure_of(model, network.network_type, inputs) if wanted else None,
        layers=(*network.hidden_layers, n_outputs(network.network_type, model)),
        activations=tuple(network.activations),
    )


def n_outputs(network_type: str, model: Model) -> int:
    """Two categories need one logit; more choices have one each."""
    return len(model.choices) if network_type == "cpn" and len(model.choices) > 2 else 1


def weight_name(layer: int) -> str:
    return f"layer_{layer}.weight"


def bias_name(layer: int) -> str:
    return f"layer_{layer}.bias"


def forward(spec: NetworkSpec, weights: Weights, x: np.ndarray) -> np.ndarray:
    """Outputs (n,), or (n, K) if there are several, for raw inputs ``x`` (n, D), in the precision of ``x``."""
    features, leading = spec.prepare(x)
    h = features.astype(x.dtype)
    for layer in range(len(spec.layers)):
        h = h @ weights[weight_name(layer)].T.astype(h.dtype) + weights[bias_name(layer)].astype(h.dtype)
        if layer < len(spec.activations):
            h = ACTIVATIONS[spec.activations[layer]](h)
    if spec.structure is None:
        return h[:, 0] if spec.layers[-1] == 1 else h
    return (h[:, 0] + leading).astype(x.dtype)


@dataclass(frozen=True)
class Standardisation:
    """Column means and scales (D,) in float64: training sees (x - mean) / scale."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Standardisation:
        """Mean and standard deviation of the columns of ``x`` (n, D); a constant column keeps the scale 1."""
        mean = x.mean(axis=0, dtype=np.float64)
        scale = x.std(axis=0, dtype=np.float64)
        return cls(mean, np.where(scale > 0, scale, 1.0))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Standardised float32 copy of ``x`` (n, D)."""
        return (x - self.mean.astype(np.float32)) / self.scale.astype(np.float32)

    def fold(self, weights: Weights) -> Weights:
        """Weights that give for raw inputs what ``weights`` give for standardised ones."""
        first = weights[weight_name(0)].astype(np.float64) / self.scale
        shift = weights[bias_name(0)] - first @ self.mean
        return {**weights, weight_name(0): first.astype(np.float32), bias_name(0): shift.astype(np.float32)}
