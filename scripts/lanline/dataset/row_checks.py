"""What rows of training data can hold at all: looked at in every row of every file, whoever made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lanline.dataset.problems import Problem, shown
from lanline.dataset.reading import open_shard, read_rows
from lanline.models import Model
from lanline.theta import bounds_at

PIECE_ROWS = 200_000  # in memory at once
FIELD_FLOOR = -66.77497  # log of 1e-29: the lowest label in the field's files
HIGHEST_LABEL = 20.0  # a density of 5e8 per second: all responses within nanoseconds
EARLIEST_RT = -1.0  # seconds; rows before 0 teach that there is nothing
OMISSION = -999.0  # what ssm-simulators writes for an rt that there is none of
LATE_SHARE, FAR_TOO_LATE = 0.1, 1e6  # of estimated rows
SLACK = 1e-3
SIGNATURE_ROWS = 4096  # rows by which files are compared with each other
WHOLE_FILE, REPEATED_SHARE = 0.95, 0.01  # float32 makes a few rows equal by chance
FEW = 8  # values that may all be equal by chance


@dataclass(frozen=True)
class Limits:
    """What the rows of a file may hold.

    Attributes:
        model: with the bounds that thetas lie in.
        floor: lowest label of a lan.
        latest_rt: largest rt, seconds: the time limit.
        estimated: whether rows were drawn from an estimate, ssm-simulators', which has a few that come much later, and
            has probabilities that are shares of trials, which are often equal.
    """

    model: Model
    floor: float = FIELD_FLOOR
    latest_rt: float = np.inf
    estimated: bool = False


@dataclass
class Scan:
    """What was seen in one file.

    Attributes:
        problems: by kind and reason.
        signatures: by network type, the smallest hashes of its rows: those of equal rows are equal. Rows of a lan are
            theta, rt and choice, of the others theta and label.
        thetas: the smallest hashes of its parameter vectors.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    signatures: dict[str, np.ndarray] = field(default_factory=dict)
    thetas: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))


def scan_rows(path: Path, limits: Limits, names: Sequence[str]) -> Scan:
    """Look at every row of some arrays of a shard, in pieces.

    Args:
        path: the shard.
        limits: what its rows may hold.
        names: of its arrays, float32, e.g. lan_data and lan_labels.

    Raises:
        UserError: the file cannot be read.
    """
    scan = Scan()
    counts: Counter[tuple[str, str]] = Counter()
    with open_shard(path) as file:
        lengths = {name: file.get_slice(name).get_shape()[0] for name in names}
    for name, n in lengths.items():
        span: tuple[float, float] = (np.inf, -np.inf)
        for start in range(0, n, PIECE_ROWS):
            (values,) = read_rows(path, [name], start, min(start + PIECE_ROWS, n))
            counts.update(_count_wrong(name, values, limits))
            if name.endswith("_data"):
                rows = values
                network_type, n_params = name.removesuffix("_data"), len(limits.model.params)
                if network_type != "lan" and f"{network_type}_labels" in lengths:
                    (labels,) = read_rows(path, [f"{network_type}_labels"], start, start + len(values))
                    rows = np.concatenate([values, labels.reshape(len(labels), -1)], axis=1)
                if network_type == "lan":
                    rows = rows[rows[:, n_params] != 0]  # choices without response times (softmax) do repeat
                _extend_signature(scan.signatures, network_type, rows)
                scan.thetas = _smallest(np.unique(np.concatenate([scan.thetas, _hash_rows(values[:, :n_params])])))
            else:
                span = min(span[0], float(values.min())), max(span[1], float(values.max()))
        if name == "lan_labels" and n > FEW and span[0] == span[1]:
            scan.problems.append(("label range", f"all {n:,} lan_labels are {span[0]:g}"))
    if {"lan_data", "lan_labels"} <= set(names) and lengths["lan_data"] == lengths["lan_labels"]:
        counts.update(_count_early(path, lengths["lan_data"], limits))
    scan.problems += [(kind, f"{n:,} {reason}") for (kind, reason), n in counts.items() if n]
    scan.problems += _repeated(scan.signatures)
    return scan


def _count_wrong(name: str, values: np.ndarray, limits: Limits) -> dict[tuple[str, str], int]:
    """How many of some values or rows of an array are impossible, by kind and reason."""
    wrong = {("not finite", f"values of {name} are NaN or infinite"): ~np.isfinite(values)}
    if name.endswith("_data"):
        for column, param in enumerate(limits.model.params):
            lower, upper = (np.asarray(bound, np.float32) for bound in bounds_at(limits.model, param, values))
            outside = (values[:, column] < lower) | (values[:, column] > upper)
            wrong["bounds", f"rows of {name} have {param} outside {list(limits.model.bounds[param])}"] = outside
    if name == "lan_data":
        wrong |= _wrong_responses(values[:, -2], values[:, -1], limits)
    elif name == "lan_labels":
        wrong["label range", f"lan_labels lie below the floor, {limits.floor:g}"] = values < limits.floor - SLACK
        wrong["label range", f"lan_labels lie above {HIGHEST_LABEL:g}, no log-density does"] = values > HIGHEST_LABEL
    elif name.endswith("_labels"):
        wrong["probability", f"values of {name} are not in [0, 1]"] = (values < 0) | (values > 1)
    return {key: int(np.count_nonzero(rows)) for key, rows in wrong.items()}


def _wrong_responses(rt: np.ndarray, choice: np.ndarray, limits: Limits) -> dict[tuple[str, str], np.ndarray]:
    allowed = ", ".join(map(str, limits.model.choices))
    omitted, late = rt == OMISSION, rt > limits.latest_rt + SLACK
    if limits.estimated and late.mean() <= LATE_SHARE:
        late = rt > FAR_TOO_LATE * limits.latest_rt
    reason = f"rows have an rt beyond the time limit of the data, {limits.latest_rt:g} s"
    if late.mean() > 0.5 and np.median(rt[late]) > 50:
        reason += " (milliseconds? seconds are expected)"
    return {
        ("choice", f"rows have a choice other than {allowed}, those of {limits.model.name}"): ~np.isin(
            choice, limits.model.choices
        ),
        ("rt", "rows have the rt -999, an omission, which has no density: remove these rows"): omitted,
        ("rt", f"rows have an rt below {EARLIEST_RT:g} s"): (rt < EARLIEST_RT - SLACK) & ~omitted,
        ("rt", reason): late,
    }


def _count_early(path: Path, n: int, limits: Limits) -> Counter[tuple[str, str]]:
    """Rows that come before time 0 and are said to be possible."""
    counts: Counter[tuple[str, str]] = Counter()
    for start in range(0, n, PIECE_ROWS):
        data, labels = read_rows(path, ["lan_data", "lan_labels"], start, min(start + PIECE_ROWS, n))
        early = (data[:, -2] < 0) & (data[:, -2] != OMISSION) & (labels.reshape(len(data), -1)[:, 0] > limits.floor + 1)
        counts["label range", "rows have an rt below 0 and a label above the floor"] += int(np.count_nonzero(early))
    return counts


# --- rows that are there more than once -------------------------------------------------------------------------------
def _extend_signature(signatures: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    hashes = _hash_rows(values)
    if name in signatures:
        hashes = np.concatenate([signatures[name], hashes])
    signatures[name] = np.sort(_smallest(hashes))


def _smallest(hashes: np.ndarray) -> np.ndarray:
    if len(hashes) > SIGNATURE_ROWS:
        return np.partition(hashes, SIGNATURE_ROWS - 1)[:SIGNATURE_ROWS]
    return hashes


def _hash_rows(values: np.ndarray) -> np.ndarray:
    """(n,) 64-bit hashes of the rows of a float32 array."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    hashes = np.zeros(len(words), np.uint64)
    for column in words.T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _repeated(signatures: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    for name, hashes in signatures.items():
        share = 1 - len(np.unique(hashes)) / max(len(hashes), 1)
        if share > REPEATED_SHARE:
            yield "duplicate", f"{share:.0%} of the rows of {name}_data are duplicates"


def compare_files(scans: dict[Path, Scan], validation: Sequence[Path] = (), estimated: bool = False) -> list[Problem]:
    """Rows that two files have in common.

    Args:
        scans: what was seen, by file.
        validation: the files that validate a training; rows of theirs must not be trained on.
        estimated: as `Limits.estimated`.
    """
    problems = []
    ordered = [*(path for path in scans if path in validation), *(path for path in scans if path not in validation)]
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # by array: sorted hashes, and the number of their file
    for number, path in enumerate(ordered):
        for name, hashes in scans[path].signatures.items():
            own = np.unique(hashes)
            if name in seen and (
                found := _in_common(own, *seen[name], WHOLE_FILE if estimated and name != "lan" else REPEATED_SHARE)
            ):
                other = ordered[found[0]]
                trap = other in validation and path not in validation
                what = "which validates the training" if trap else "another file"
                problems.append(
                    Problem(
                        shown(path),
                        "duplicate",
                        f"{found[1]:.0%} of its rows of {name}_data are also in {shown(other)}, {what}",
                    )
                )
            old, owner = seen.get(name, (np.empty(0, np.uint64), np.empty(0, int)))
            merged = np.concatenate([old, own])
            order = np.argsort(merged, kind="stable")
            seen[name] = merged[order], np.concatenate([owner, np.full(len(own), number)])[order]
    return problems


def _in_common(own: np.ndarray, seen: np.ndarray, owner: np.ndarray, allowed: float) -> tuple[int, float] | None:
    """The file that has most rows in common, and the share of ``own`` that it has."""
    at = np.minimum(np.searchsorted(seen, own), len(seen) - 1)
    shared = seen[at] == own
    if shared.mean() <= allowed:
        return None
    return int(np.bincount(owner[at[shared]]).argmax()), float(shared.mean())
