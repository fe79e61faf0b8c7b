"""The folder of a trained network: what is written, and how it is read back.

model.onnx (HSSM's single-trial contract), weights.safetensors (for raw inputs), network.json (specification
and identity), history.csv (one line an epoch), hssm.json (what HSSM has to be told: `lanline.hssm`). A cpn has a file
for each choice too, in the form that the released HSSM loads.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lanline import hssm
from lanline.errors import UserError
from lanline.files import atomic_path, write_json
from lanline.networks.onnx_export import check_parity, write_onnx
from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name

FORMAT_VERSION = 1
FILES = ("model.onnx", "weights.safetensors", "network.json", "history.csv", hssm.FILE)


def write_network(
    folder: Path,
    spec: NetworkSpec,
    weights: Weights,
    identity: dict[str, str],
    history: list[dict[str, float]],
    trained: Callable[[np.ndarray], np.ndarray],
    parity_rows: np.ndarray,
) -> float:
    """Write all files of a trained network and check the ONNX file against its trainer.

    Args:
        folder: folder to write to.
        spec: the network.
        weights: for raw inputs.
        identity: where the network came from (run, seed, framework, ids); also in the ONNX file's metadata.
        history: one dictionary of numbers for each epoch.
        trained: the trainer's own forward pass: raw inputs (n, D), as exported, to values (n,).
        parity_rows: raw inputs (n, D) inside the bounds to compare at.

    Returns:
        The largest difference between the ONNX file and the trainer.

    Raises:
        ParityError: the ONNX file does not compute what the trained network does.
    """
    folder = Path(folder)
    write_onnx(folder / "model.onnx", spec, weights, identity)
    parity = check_parity(folder / "model.onnx", trained, parity_rows)
    with atomic_path(folder / "weights.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(
        folder / "network.json",
        {"format_version": FORMAT_VERSION, "specification": spec.to_json(), "identity": identity},
    )
    write_history(folder / "history.csv", history)
    return parity


def write_hssm_files(
    folder: Path,
    spec: NetworkSpec,
    weights: Weights,
    identity: dict[str, str],
    bounds: dict[str, tuple[float, float | str]],
) -> list[Path]:
    """Write what `write_network` does not know of: the bounds that HSSM has to keep to, and a cpn's files for HSSM 0.5.

    Args:
        folder: of the network.
        spec: the network.
        weights: for raw inputs.
        identity: as in `write_network`.
        bounds: of the parameters in training (`Model.bounds`).

    Returns:
        The ONNX files that are new.
    """
    write_json(folder / hssm.FILE, hssm.description(spec, bounds))
    if spec.network_type != "cpn":
        return []
    paths = [folder / hssm.choice_file(choice) for choice in spec.choices]
    for path, choice in zip(paths, spec.choices, strict=True):
        write_onnx(path, spec, weights, identity, choice)
    return paths


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """One line of numbers for each epoch."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: Path) -> list[dict[str, float]]:
    with Path(path).open(newline="") as handle:
        return [{key: float(value) for key, value in line.items()} for line in csv.DictReader(handle)]


def read_network(folder: Path) -> tuple[NetworkSpec, Weights, dict[str, Any]]:
    """Specification, weights for raw inputs, and identity of a network.

    Raises:
        UserError: a file is missing or broken, or the weights do not fit the specification.
    """
    folder = Path(folder)
    path = folder / "network.json"
    try:
        description = json.loads(path.read_text())
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(f"{path}: format version {version}, this lanline reads {FORMAT_VERSION}")
        spec = NetworkSpec.from_json(description["specification"])
        identity = description["identity"]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe a network: {error}") from None
    return spec, _read_weights(folder / "weights.safetensors", spec), identity


def _read_weights(path: Path, spec: NetworkSpec) -> Weights:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    expected: dict[str, tuple[int, ...]] = {}
    for layer, shape in enumerate(spec.shapes):
        expected |= {weight_name(layer): shape, bias_name(layer): shape[:1]}
    found = {name: array.shape for name, array in weights.items()}
    if found != expected:
        raise UserError(f"{path} does not fit network.json: expected shapes {expected}, found {found}")
    return weights
