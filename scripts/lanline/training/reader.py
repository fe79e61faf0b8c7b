"""Training rows in batches: every row exactly once an epoch, in an order that the seed fixes.

A row is one line of float32 numbers, standardised features and the labels in the last columns, so that shuffling moves
one piece of memory a row. Rows that fit into the buffer are read once and shuffled as a whole. Others stream: an epoch
reads short pieces of all files in random order, as many as the buffer holds, and shuffles the rows of each such window
while the next one is being read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lanline.dataset.reading import open_shard, read_rows
from lanline.errors import UserError
from lanline.networks.specification import NetworkSpec, Standardisation

PIECE_ROWS = 10_000  # rows that are read in one go when streaming: a fraction of a megabyte
RARE = -16.0  # log-density below which a leading term is left alone: capacity spent there costs accuracy above
Window = tuple[np.ndarray, np.ndarray]  # rows (n, D + L), and which of them to take, in that order


@dataclass(frozen=True)
class Piece:
    """Rows ``start`` to ``stop`` of one file."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def pieces_of(files: Sequence[Path], spec: NetworkSpec, rows: int = PIECE_ROWS) -> list[Piece]:
    """All rows of ``files`` as pieces of at most ``rows`` rows; reads the files' headers only.

    Raises:
        UserError: a file cannot be read, or has not the columns that the network needs.
    """
    pieces = []
    for path in files:
        n = _n_rows(path, spec)
        pieces += [Piece(Path(path), start, min(start + rows, n)) for start in range(0, n, rows)]
    return pieces


def read_piece(piece: Piece, spec: NetworkSpec, label_floor: float | None = None) -> np.ndarray:
    """Raw inputs and labels, (n, D + L) float32; labels of a lan below ``label_floor`` are raised to it."""
    data, labels = read_rows(piece.path, _names(spec), piece.start, piece.stop)
    if label_floor is not None and not spec.gives_probabilities:
        labels = np.maximum(labels, np.float32(label_floor))
    return np.concatenate([data, labels.reshape(len(data), -1)], axis=1)


def lowest_label(spec: NetworkSpec, label_floor: float | None, rows: np.ndarray) -> float | None:
    """What labels and leading terms are raised to: the floor of the settings, by default `RARE` if there is a leading
    term, but not less than the lowest label in some ``rows`` (n, D + 1)."""
    if spec.structure is None or spec.gives_probabilities:
        return label_floor
    return max(float(rows[:, -1].min()), RARE if label_floor is None else label_floor)


def training_rows(rows: np.ndarray, spec: NetworkSpec, floor: float | None) -> np.ndarray:
    """What the layers are given, and what they should answer, (n, F + L) float32, from raw inputs and labels.

    A leading term below ``floor`` counts as the floor, as labels do: where both lie below, there is nothing to learn.
    """
    if spec.structure is None:
        return rows
    x, labels = rows[:, : len(spec.inputs)], rows[:, len(spec.inputs) :]
    features, leading = spec.prepare(x)
    if floor is not None:
        leading = np.maximum(leading, floor)
    return np.concatenate([features, labels - leading[:, None]], axis=1, dtype=np.float32)


def _names(spec: NetworkSpec) -> tuple[str, str]:
    return f"{spec.network_type}_data", f"{spec.network_type}_labels"


def _n_rows(path: Path, spec: NetworkSpec) -> int:
    n_inputs, n_labels = len(spec.inputs), spec.layers[-1]
    with open_shard(path) as file:
        missing = set(_names(spec)) - set(file.keys())
        if missing:
            raise UserError(f"{path} has no array {', '.join(sorted(missing))}")
        slices = [file.get_slice(name) for name in _names(spec)]
        data, labels = (tuple(part.get_shape()) for part in slices)
        types = {part.get_dtype() for part in slices}
    if types != {"F32"}:
        raise UserError(f"{path}: {' and '.join(_names(spec))} hold {' and '.join(sorted(types))}; expected F32")
    expected = (n_labels,) if n_labels > 1 else ()
    if len(data) != 2 or data[1] != n_inputs or labels != (data[0], *expected):
        raise UserError(
            f"{path}: {' and '.join(_names(spec))} have shapes {data} and {labels}; a network with the inputs "
            f"{', '.join(spec.inputs)} needs (n, {n_inputs}) and (n,{f' {n_labels}' if expected else ''})"
        )
    return data[0]


class Reader:
    """Shuffled batches of some rows.

    Args:
        pieces: the rows, as `pieces_of` gives them.
        spec: the network that they are for.
        standardisation: of the inputs.
        batch_size: rows of a batch; the last one of an epoch has what is left.
        block_batches: batches that are given at once.
        buffer_rows: rows that may be in memory.
        seed: of the order of rows.
        label_floor: lower labels are raised to it, and lower leading terms.

    Raises:
        UserError: a file cannot be read.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        spec: NetworkSpec,
        standardisation: Standardisation,
        batch_size: int,
        block_batches: int,
        buffer_rows: int,
        seed: int,
        label_floor: float | None = None,
    ):
        self._spec, self._standardisation, self._seed = spec, standardisation, seed
        self.floor = label_floor
        self.batch_size, self._block_batches = batch_size, block_batches
        self._pieces = pieces
        self.n_rows = sum(map(len, pieces))
        self.n_batches = -(-self.n_rows // batch_size)
        self.streams = self.n_rows > buffer_rows
        # While streaming there are two windows: the one in use and the one that is being read.
        self._window_rows = max(PIECE_ROWS, buffer_rows // 2)
        self._rows = None if self.streams else self._read(pieces, 0, self.n_rows)

    def blocks(self, epoch: int, first_batch: int) -> Iterator[Window]:
        """Batches of ``epoch`` from ``first_batch`` on, in blocks of batches of the same size: the rows (n, D + L) that
        they are taken from, and which ones each batch takes (k, b). Many blocks share one array."""
        windows = self._windows(epoch, first_batch * self.batch_size)
        rows, order = next(windows)
        for k, b in self._block_sizes(first_batch):
            while len(order) < k * b:
                left, (rows, order) = rows.take(order, axis=0), next(windows)
                rows[: len(left)] = left
                order = np.concatenate([np.arange(len(left)), order])
            yield rows, order[: k * b].reshape(k, b)
            order = order[k * b :]

    def _block_sizes(self, first_batch: int) -> Iterator[tuple[int, int]]:
        whole, rest = divmod(self.n_rows, self.batch_size)
        for batch in range(first_batch, whole, self._block_batches):
            yield min(self._block_batches, whole - batch), self.batch_size
        if rest and first_batch < self.n_batches:
            yield 1, rest

    def _windows(self, epoch: int, first_row: int) -> Iterator[Window]:
        """Windows of the epoch without the first ``first_row`` rows of its order; those of a stream have one shape, and
        room in front for the rows that the window before leaves, less than a block."""
        if not self.streams:
            yield self._rows, _order(0, self.n_rows, _rng(self._seed, epoch, 0))[first_row:]
            return
        groups = self._groups(_rng(self._seed, epoch).permutation(len(self._pieces)))
        sizes = [sum(map(len, group)) for group in groups]
        ends = np.cumsum(sizes)
        room = self.batch_size * self._block_batches
        current = int(np.searchsorted(ends, first_row, side="right"))
        with ThreadPoolExecutor(1) as background:
            coming = background.submit(self._read, groups[current], room, self._window_rows)
            for number in range(current, len(groups)):
                rows = coming.result()
                if number + 1 < len(groups):
                    coming = background.submit(self._read, groups[number + 1], room, self._window_rows)
                done = max(0, first_row - int(ends[number]) + sizes[number])
                yield rows, _order(room, room + sizes[number], _rng(self._seed, epoch, number))[done:]

    def _groups(self, order: np.ndarray) -> list[list[Piece]]:
        """The pieces in that order, in groups that fill a window."""
        groups: list[list[Piece]] = []
        free = 0
        for piece in (self._pieces[i] for i in order):
            if len(piece) > free:
                groups.append([])
                free = self._window_rows
            groups[-1].append(piece)
            free -= len(piece)
        return groups

    def _read(self, pieces: Sequence[Piece], room: int, size: int) -> np.ndarray:
        """Standardised rows (room + size, D + L), those of the pieces from ``room`` on."""
        n_features = len(self._spec.features)
        rows = np.empty((room + size, n_features + self._spec.layers[-1]), np.float32)
        start = room
        for piece in pieces:
            part = rows[start : start + len(piece)]
            raw = read_piece(piece, self._spec, self.floor)
            part[:] = training_rows(raw, self._spec, self.floor)
            part[:, :n_features] = self._standardisation.apply(part[:, :n_features])
            start += len(piece)
        return rows


def _order(start: int, stop: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers from ``start`` to ``stop`` in random order, int64.

    Sorts random numbers whose last bits are these: several times as fast as to shuffle them, which reaches all over
    the memory.
    """
    bits = stop.bit_length()
    keys = rng.bit_generator.random_raw(stop - start)
    keys >>= bits
    keys <<= bits
    for i in range(0, len(keys), PIECE_ROWS):  # beside an array as large there may be no room for another one
        part = keys[i : i + PIECE_ROWS]
        part |= np.arange(start + i, start + i + len(part), dtype=np.uint64)
    keys.sort()
    keys &= (1 << bits) - 1
    return keys.view(np.int64)


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
