"""Initial weights, made once in numpy, so that every framework starts from the same network."""

from __future__ import annotations

import numpy as np

from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name


def initial_weights(spec: NetworkSpec, seed: int) -> Weights:
    """Uniform weights of variance 2 / (in + out) and zero biases (Glorot & Bengio 2010), float32."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for layer, (n_out, n_in) in enumerate(spec.shapes):
        limit = np.sqrt(6 / (n_in + n_out))
        weights[weight_name(layer)] = rng.uniform(-limit, limit, (n_out, n_in)).astype(np.float32)
        weights[bias_name(layer)] = np.zeros(n_out, np.float32)
    return weights
