"""Rows of training data: thetas, then (rt, choice) from a mixture, then labels; and the probabilities at each theta.

The rows of a shard are made in blocks of a few thetas. Each block has its own random stream, so a shard has
the same bytes on any number of cores and in any order, and validation can make a single block again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from lanline.config import Data, Mixture
from lanline.engines import Densities, densities
from lanline.models import Model
from lanline.theta import sample_theta, sobol_theta

BLOCK_THETAS = 16
SCARCE = 1e-6  # a theta that responds less often has no choice probabilities worth the name


def n_blocks(data: Data) -> int:
    """Number of blocks in a shard; the last one may be smaller."""
    return -(-data.thetas_per_shard // BLOCK_THETAS)


def _block_size(data: Data, block: int) -> int:
    return min(BLOCK_THETAS, data.thetas_per_shard - block * BLOCK_THETAS)


def block_rows(model: Model, data: Data, seed: int, shard: int, block: int) -> dict[str, np.ndarray]:
    """Rows of one block of a shard.

    Args:
        model: with the bounds of this configuration.
        data: engine, mixture and sizes.
        seed: of the training data.
        shard: number of the shard.
        block: number of the block in the shard.

    Returns:
        ``lan_data`` (n, P + 2) with theta, rt and choice, and ``lan_labels`` (n,), float32. Rows of one theta
        follow one another. Labels are log-likelihoods at the values as they are stored, not below
        ``data.floor``. Beside them the arrays of `probability_rows`, with one row for each theta.
    """
    name = int.from_bytes(hashlib.sha256(model.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(name, shard, block)))
    n_theta = _block_size(data, block)
    if data.theta_sampling == "sobol":
        sequence = np.random.SeedSequence(seed, spawn_key=(name, shard))
        theta = sobol_theta(model, BLOCK_THETAS, sequence, skipped=block * BLOCK_THETAS)[:n_theta]
    else:
        theta = sample_theta(model, n_theta, rng)
    # Labels belong to what the network sees: parameters and times rounded to float32.
    theta = theta.astype(np.float32).astype(np.float64)
    density = densities(model, theta, data, rng)
    n_density, n_uniform, n_negative = _counts(data.mixture, data.rows_per_theta)
    drawn_rt, drawn_choice = density.sample(n_density, rng)
    filler = (n_theta, data.rows_per_theta - n_density)
    rt = np.concatenate([drawn_rt, rng.random(filler) * np.repeat([data.max_t, -1.0], [n_uniform, n_negative])], axis=1)
    choice = np.concatenate([drawn_choice, rng.choice(model.choices, filler)], axis=1)
    # At a theta that hardly ever responds in time nothing can be drawn: those rows are uniform too.
    silent = np.isnan(rt)
    rt[silent] = rng.random(silent.sum()) * data.max_t
    choice[silent] = rng.choice(model.choices, silent.sum())
    rt = rt.astype(np.float32).astype(np.float64)
    labels = np.full(rt.shape, data.floor)
    scored = slice(n_density + n_uniform)
    labels[:, scored] = np.maximum(density.log_density(rt[:, scored], choice[:, scored]), data.floor)
    rows = np.concatenate(
        [np.repeat(theta, data.rows_per_theta, axis=0), rt.reshape(-1, 1), choice.reshape(-1, 1)], axis=1
    )
    return {
        "lan_data": rows.astype(np.float32),
        "lan_labels": labels.ravel().astype(np.float32),
        **probability_rows(model, theta, density),
    }


def probability_rows(model: Model, theta: np.ndarray, density: Densities) -> dict[str, np.ndarray]:
    """Training data of the networks that give probabilities, float32, under the names that ssm-simulators uses.

    Args:
        model: with the bounds of this configuration.
        theta: (B, P) parameters.
        density: at these thetas.

    Returns:
        ``cpn_labels``: probability of the upper choice given a response before the time limit (B,), or of each
        choice (B, C) if there are more than two; all the same where there are next to no responses.
        ``opn_labels`` (B,), of models with a deadline: probability of no response before it.
        ``gonogo_labels`` (B,): probability that the response is not the upper choice, or that there is none.
        ``cpn_data`` and so on: theta (B, P).
    """
    probability = np.clip(density.choice_probability(), 0.0, 1.0)
    total = probability.sum(axis=1, keepdims=True)
    even = np.full_like(probability, 1 / len(model.choices))
    given_response = np.divide(probability, total, out=even, where=total > SCARCE)
    labels = {
        "cpn": given_response[:, 1] if len(model.choices) == 2 else given_response,
        "gonogo": 1 - probability[:, -1],
    }
    if "deadline" in model.params:
        labels["opn"] = density.omission_probability()
    arrays = {}
    for network_type, values in labels.items():
        arrays[f"{network_type}_data"] = theta.astype(np.float32)
        arrays[f"{network_type}_labels"] = values.astype(np.float32)
    return arrays


def shard_shapes(model: Model, data: Data) -> dict[str, tuple[int, ...]]:
    """Shape of each array of a shard."""
    n_rows, n_thetas, n_params = data.rows_per_shard, data.thetas_per_shard, len(model.params)
    shapes: dict[str, tuple[int, ...]] = {"lan_data": (n_rows, n_params + 2), "lan_labels": (n_rows,)}
    for network_type in ("cpn", "gonogo", *(["opn"] if "deadline" in model.params else [])):
        shapes |= {f"{network_type}_data": (n_thetas, n_params), f"{network_type}_labels": (n_thetas,)}
    if len(model.choices) > 2:
        shapes["cpn_labels"] = (n_thetas, len(model.choices))
    return shapes


def shard_blocks(model: Model, data: Data, seed: int, shard: int) -> Iterator[dict[str, np.ndarray]]:
    """The blocks of a shard, one after the other; arguments as in `block_rows`."""
    return (block_rows(model, data, seed, shard, block) for block in range(n_blocks(data)))


def _counts(mixture: Mixture, rows: int) -> tuple[int, int, int]:
    """Rows of a theta from the density, with uniform rt, and with negative rt; they add up to ``rows``."""
    uniform, negative = round(mixture.uniform * rows), round(mixture.negative * rows)
    density = rows - uniform - negative
    # Two shares that both round up can exceed the rows by one.
    return (density, uniform, negative) if density >= 0 else (0, uniform, negative + density)
