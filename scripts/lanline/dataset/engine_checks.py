"""Labels of training data against the engine's own, at a few thetas of every part of a file.

lanline's labels of the exact engines are computed again to `LABEL_TOLERANCE`. Labels that were simulated, lanline's or
ssm-simulators', carry noise: their median shows whether they are labels of these rows. Measured on ssm-simulators'
files of 17 models with 200 to 10,000 trials a theta, the median difference from the engine is 0.03 to 0.11 nats (its
share above 2 nats at most 7 %), and 1.2 or more where labels were permuted; probabilities differ by 0.002 to 0.014 on
average.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lanline.config import Data
from lanline.dataset.reading import open_shard, read_rows
from lanline.dataset.recipe import ForeignOrigin, Recipe
from lanline.dataset.rows import BLOCK_THETAS, block_rows, n_blocks, probability_rows
from lanline.engines import densities, has_exact, resolve_engine
from lanline.errors import UserError
from lanline.models import Model

# Other processors round the last digits of exp and log differently, and float32 keeps seven of them.
LABEL_TOLERANCE = 1e-3
MAX_BLOCKS, FEWEST_THETAS = 512, 32  # of a file, that are looked at
ROWS_PER_THETA = 8
CHUNK_THETAS = 32
SECONDS = 4.0  # for one file; some models' engine takes half a second for a theta
COUNTED = -3.0  # where simulated labels are compared: elsewhere they are noise
LARGEST_MEDIAN, FAR_OFF, LARGEST_FAR_SHARE, FEWEST = 0.5, 2.0, 0.25, 16
PROBABILITY_BIAS = 0.03  # of a simulation with a time step
TRIALS = 2000  # of a reference that must be simulated
COARSEST_STEP = 5e-3
SAMPLED_ROWS = 256  # of a foreign file
CONSTANT, VARIES, FEW_THETAS = 1e-6, 0.02, 4

Found = Iterator[tuple[str, str]]


def compare_block(path: Path, recipe: Recipe) -> Found:
    """Compute one block of the shard again, another one for each shard, and compare rows and labels."""
    block = recipe.shard % n_blocks(recipe.data)
    for name, again in block_rows(recipe.model, recipe.data, recipe.seed, recipe.shard, block).items():
        per_theta = recipe.data.rows_per_theta if name.startswith("lan_") else 1
        start = block * BLOCK_THETAS * per_theta
        (stored,) = read_rows(path, [name], start, start + len(again))
        difference = np.abs(stored - again)
        if bad := int(np.count_nonzero(~(difference <= LABEL_TOLERANCE))):
            kind = "labels" if name.endswith("_labels") else "rows"
            yield kind, f"{bad:,} of {difference.size:,} values of {name} differ from the engine's own (block {block})"


def compare_every_block(path: Path, recipe: Recipe) -> Found:
    """Labels of all types at one theta of every block, a few rows of each, against the engine."""
    rng = np.random.default_rng(recipe.shard)
    data, model = recipe.data, recipe.model
    numbers = _thetas_of_every_block(data, rng)
    with open_shard(path) as file:
        names = [name for name in file.keys() if name != "lan_labels" and name.endswith("_labels")]  # noqa: SIM118
    exact = resolve_engine(model, data) != "simulation"
    started = time.perf_counter()
    wrong: dict[str, list[int]] = {}
    deviations: list[np.ndarray] = []
    for part in np.array_split(rng.permutation(numbers), -(-len(numbers) // CHUNK_THETAS)):
        rows, labels = _rows_of(path, part, data, rng)
        theta = rows[:, 0, :-2].astype(float)
        density = densities(model, theta, data, rng)
        reference = np.maximum(
            density.log_density(rows[..., -2].astype(float), rows[..., -1].astype(float)), data.floor
        )
        if exact:
            off = ~(np.abs(reference - labels) <= LABEL_TOLERANCE * np.maximum(1, np.abs(reference)))
            _note(wrong, "lan_labels", part[off.any(axis=1)])
        else:
            deviations.append(_deviations(reference, labels))
        probabilities = probability_rows(model, theta, density)
        for name in names:
            stored = _at(path, name, part)
            _note(wrong, name.replace("labels", "data"), part[_differ(_at(path, _data(name), part), theta, 1e-6)])
            if exact:
                _note(wrong, name, part[_differ(stored, probabilities[name], LABEL_TOLERANCE)])
        if time.perf_counter() - started > SECONDS:
            break
    for name, bad in wrong.items():
        if bad:
            shown = ", ".join(map(str, sorted(number // BLOCK_THETAS for number in bad)[:5]))
            kind = "labels" if name.endswith("_labels") else "rows"
            yield kind, f"{name} differ from the engine's own at {len(bad)} of the sampled thetas (blocks {shown})"
    yield from _judge_noisy(deviations)


def _thetas_of_every_block(data: Data, rng: np.random.Generator) -> np.ndarray:
    """Numbers of thetas in a shard: one of each block, and more where there are few blocks."""
    blocks = np.unique(np.linspace(0, n_blocks(data) - 1, MAX_BLOCKS).round().astype(int))
    numbers = np.minimum(blocks * BLOCK_THETAS + rng.integers(0, BLOCK_THETAS, len(blocks)), data.thetas_per_shard - 1)
    more = rng.permutation(data.thetas_per_shard)[: max(FEWEST_THETAS - len(numbers), 0)]
    return np.unique(np.concatenate([numbers, more]))


def _data(labels: str) -> str:
    return labels.replace("_labels", "_data")


def _note(wrong: dict[str, list[int]], name: str, numbers: np.ndarray) -> None:
    wrong.setdefault(name, []).extend(int(number) for number in numbers)


def _differ(stored: np.ndarray, again: np.ndarray, tolerance: float) -> np.ndarray:
    off = ~(np.abs(stored.astype(float) - again) <= tolerance)
    return off.reshape(len(off), -1).any(axis=1)


def _at(path: Path, name: str, numbers: np.ndarray) -> np.ndarray:
    return np.concatenate([read_rows(path, [name], number, number + 1)[0] for number in numbers])


def _rows_of(path: Path, numbers: np.ndarray, data: Data, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(B, n, P + 2) rows of these thetas and (B, n) labels."""
    n = data.rows_per_theta
    rows, labels = [], []
    for number in numbers:
        of_theta = read_rows(path, ["lan_data", "lan_labels"], number * n, (number + 1) * n)
        chosen = rng.choice(n, min(n, ROWS_PER_THETA), replace=False)
        rows.append(of_theta[0][chosen])
        labels.append(of_theta[1][chosen])
    return np.stack(rows), np.stack(labels)


# --- labels that carry noise ------------------------------------------------------------------------------------------
def _deviations(reference: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counted = np.maximum(reference, labels) > COUNTED
    return np.abs(reference - labels)[counted]


def _judge_noisy(parts: list[np.ndarray]) -> Found:
    deviation = np.concatenate(parts) if parts else np.empty(0)
    if len(deviation) < FEWEST:
        return
    median, far = float(np.median(deviation)), float((deviation > FAR_OFF).mean())
    if median > LARGEST_MEDIAN or far > LARGEST_FAR_SHARE:
        yield (
            "labels",
            f"lan_labels are not the log-densities of their rows: {median:.2f} nats from the engine's in the median "
            f"of {len(deviation)} sampled rows, and more than {FAR_OFF:g} in {far:.0%} of them",
        )


def compare_foreign(path: Path, origin: ForeignOrigin, network_type: str) -> Found:
    """Labels of a file that was not made by lanline, at rows from all over it, against the engine.

    Args:
        path: a shard that `lanline.dataset.foreign` made of a pickle.
        origin: of it.
        network_type: whose arrays it holds.
    """
    name = f"{network_type}_data"
    with open_shard(path) as file:
        n = file.get_slice(name).get_shape()[0]
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.unique(np.linspace(0, n - 1, SAMPLED_ROWS).round().astype(int)))
    rows, labels = _at(path, name, numbers), _at(path, f"{network_type}_labels", numbers)
    compare = _compare_foreign_densities if network_type == "lan" else _compare_foreign_probabilities
    try:
        yield from compare(origin, rows, labels, network_type, rng)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        yield "labels", f"the engine has no densities at the thetas of {name}: {error}"


def _reference_settings(origin: ForeignOrigin) -> Data:
    """As the file was made, by Euler steps; what must be simulated takes coarser ones."""
    changes: dict[str, Any] = {"target": "euler"}
    if not has_exact(origin.model):
        step = max(origin.data.delta_t, COARSEST_STEP)
        changes |= {"engine": "simulation", "delta_t": step, "n_trajectories": TRIALS}
    return origin.data.model_copy(update=changes)


def _compare_foreign_densities(
    origin: ForeignOrigin, rows: np.ndarray, labels: np.ndarray, _: str, rng: np.random.Generator
) -> Found:
    if (rows[:, -2] == 0).all():  # models of the choice alone: what their labels are is not agreed on
        return
    settings, started, found = _reference_settings(origin), time.perf_counter(), []
    for start in range(0, len(rows), CHUNK_THETAS):
        part = rows[start : start + CHUNK_THETAS].astype(float)
        density = densities(origin.model, part[:, :-2], settings, rng)
        reference = np.maximum(density.log_density(part[:, -2:-1], part[:, -1:]), origin.data.floor)[:, 0]
        found.append(_deviations(reference, labels[start : start + CHUNK_THETAS]))
        if time.perf_counter() - started > SECONDS:
            break
    yield from _judge_noisy(found)


def _compare_foreign_probabilities(
    origin: ForeignOrigin, theta: np.ndarray, labels: np.ndarray, network_type: str, rng: np.random.Generator
) -> Found:
    settings, name = _reference_settings(origin), f"{network_type}_labels"
    reference, used = _probabilities(origin.model, theta, settings, name, rng)
    difference = np.abs(reference - labels[:used])
    if (
        len(np.unique(theta[:used], axis=0)) > FEW_THETAS
        and np.ptp(labels[:used], axis=0).max() < CONSTANT
        and np.ptp(reference, axis=0).max() > VARIES
    ):
        yield (
            "labels",
            f"{name} are {labels.flat[0]:g} at every theta, where the engine's range from "
            + (f"{reference.min():.2f} to {reference.max():.2f}"),
        )
    elif difference.mean() > PROBABILITY_BIAS + 0.5 / np.sqrt(origin.trials):
        yield (
            "labels",
            (f"{name} contradict the engine: they differ by {difference.mean():.3f} on average over {used} thetas"),
        )


def _probabilities(
    model: Model, theta: np.ndarray, settings: Data, name: str, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """The engine's labels at the first thetas, as many as there is time for, and their number."""
    parts, started = [], time.perf_counter()
    for start in range(0, len(theta), CHUNK_THETAS):
        part = theta[start : start + CHUNK_THETAS].astype(float)
        parts.append(probability_rows(model, part, densities(model, part, settings, rng))[name])
        if time.perf_counter() - started > SECONDS:
            break
    reference = np.concatenate(parts).astype(float)
    return reference, len(reference)
