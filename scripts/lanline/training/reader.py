"""Training rows in batches: every row exactly once an epoch, in an order that the seed fixes.

A row is one line of float32 numbers, standardised inputs and the label in the last column, so that shuffling
moves one piece of memory a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lanline.dataset.shards import read_shard
from lanline.errors import UserError
from lanline.networks.specification import Standardisation


class Reader(Protocol):
    """A source of shuffled batches."""

    n_rows: int
    n_batches: int

    def blocks(self, epoch: int, first_batch: int) -> Iterator[np.ndarray]:
        """The epoch's batches from ``first_batch`` on, as blocks (k, b, D + 1) of equal batches.

        The last batch of an epoch may be smaller; it is a block of its own.
        """


def read_rows(path: Path, network_type: str, n_inputs: int) -> np.ndarray:
    """Inputs and label (n, D + 1) of one file, raw.

    Raises:
        UserError: the file cannot be read or does not have ``n_inputs`` input columns.
    """
    names = [f"{network_type}_data", f"{network_type}_labels"]
    arrays = read_shard(path, names)
    data, labels = (arrays[name] for name in names)
    if data.ndim != 2 or data.shape[1] != n_inputs or labels.shape != data.shape[:1]:
        raise UserError(
            f"{path}: {names[0]} {data.shape} and {names[1]} {labels.shape} do not fit a network with "
            f"{n_inputs} inputs: expected (n, {n_inputs}) and (n,)"
        )
    return np.concatenate([data, labels[:, None]], axis=1)


def read_standardised(path: Path, network_type: str, standardisation: Standardisation) -> tuple[np.ndarray, np.ndarray]:
    """Standardised inputs (n, D) and labels (n,) of one file. Raises UserError as `read_rows` does."""
    rows = read_rows(path, network_type, len(standardisation.mean))
    return standardisation.apply(rows[:, :-1]), rows[:, -1]


class MemoryReader:
    """All rows in memory, in a new order each epoch."""

    def __init__(
        self,
        files: Sequence[Path],
        network_type: str,
        standardisation: Standardisation,
        batch_size: int,
        block_batches: int,
        seed: int,
    ):
        self._rows = _load(files, network_type, standardisation)
        self._batch_size = batch_size
        self._block_batches = block_batches
        self._seed = seed
        self.n_rows = len(self._rows)
        self.n_batches = -(-self.n_rows // batch_size)

    def blocks(self, epoch: int, first_batch: int) -> Iterator[np.ndarray]:
        order = epoch_rng(self._seed, epoch).permutation(self.n_rows)
        whole = self.n_rows // self._batch_size
        for batch in range(first_batch, whole, self._block_batches):
            last = min(batch + self._block_batches, whole)
            chosen = order[batch * self._batch_size : last * self._batch_size]
            yield self._rows[chosen].reshape(last - batch, self._batch_size, -1)
        if whole < self.n_batches:
            yield self._rows[order[whole * self._batch_size :]][None]


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """The random numbers that order an epoch."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))


def _load(files: Sequence[Path], network_type: str, standardisation: Standardisation) -> np.ndarray:
    parts = []
    for path in files:
        rows = read_rows(path, network_type, len(standardisation.mean))
        rows[:, :-1] = standardisation.apply(rows[:, :-1])
        parts.append(rows)
    return np.concatenate(parts)
