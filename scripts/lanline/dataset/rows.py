"""Rows of training data: thetas, then (rt, choice) from a mixture, then labels.

The rows of a shard are made in blocks of a few thetas. Each block has its own random stream, so a shard has
the same bytes on any number of cores and in any order, and validation can make a single block again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from lanline.config import Data, Mixture
from lanline.engines import densities
from lanline.models import Model, apply_constraints

BLOCK_THETAS = 16


def n_blocks(data: Data) -> int:
    """Number of blocks in a shard; the last one may be smaller."""
    return -(-data.thetas_per_shard // BLOCK_THETAS)


def sample_theta(model: Model, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw parameters uniformly within the bounds, under the registry's constraints.

    A bound that is another parameter's name is that parameter's value (``full_ddm_rv``: st below t).

    Returns:
        (n, P) in the order of ``model.params``.
    """
    uniform = rng.random((n, len(model.params)))
    theta = np.empty_like(uniform)
    for i in _bounds_first(model):
        lower, upper = (
            theta[:, model.params.index(bound)] if isinstance(bound, str) else float(bound)
            for bound in model.bounds[model.params[i]]
        )
        theta[:, i] = lower + (upper - lower) * uniform[:, i]
    return apply_constraints(model, theta) if model.constrained else theta


def _bounds_first(model: Model) -> list[int]:
    """Columns of theta in an order in which every bound that is a parameter comes before what it bounds."""
    order: list[int] = []
    while len(order) < len(model.params):
        known = {model.params[i] for i in order}
        order += [
            i
            for i, name in enumerate(model.params)
            if name not in known and all(not isinstance(b, str) or b in known for b in model.bounds[name])
        ]
    return order


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
        ``data.floor``.
    """
    name = int.from_bytes(hashlib.sha256(model.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(name, shard, block)))
    n_theta = min(BLOCK_THETAS, data.thetas_per_shard - block * BLOCK_THETAS)
    # Labels belong to what the network sees: parameters and times rounded to float32.
    theta = sample_theta(model, n_theta, rng).astype(np.float32).astype(np.float64)
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
    return {"lan_data": rows.astype(np.float32), "lan_labels": labels.ravel().astype(np.float32)}


def shard_rows(
    model: Model, data: Data, seed: int, shard: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, np.ndarray]:
    """All rows of a shard: its blocks one after the other.

    Args:
        model: as in `block_rows`, like ``data``, ``seed`` and ``shard``.
        progress: called with the number of finished thetas and of all thetas after each block.

    Returns:
        The arrays of `block_rows` with ``data.rows_per_shard`` rows.
    """
    blocks = []
    for block in range(n_blocks(data)):
        blocks.append(block_rows(model, data, seed, shard, block))
        if progress:
            progress(min((block + 1) * BLOCK_THETAS, data.thetas_per_shard), data.thetas_per_shard)
    return {name: np.concatenate([rows[name] for rows in blocks]) for name in blocks[0]}


def _counts(mixture: Mixture, rows: int) -> tuple[int, int, int]:
    """Rows of a theta from the density, with uniform rt, and with negative rt; they add up to ``rows``."""
    uniform, negative = round(mixture.uniform * rows), round(mixture.negative * rows)
    density = rows - uniform - negative
    # Two shares that both round up can exceed the rows by one.
    return (density, uniform, negative) if density >= 0 else (0, uniform, negative + density)
