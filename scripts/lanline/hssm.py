"""What HSSM has to be told about a network: ``hssm.json`` beside the ONNX file, and what to do with it.

HSSM takes the order of parameters, their bounds and the backend from its own tables, or from nowhere. So they go along
with every file, and ``hssm.HSSM(data, model=..., model_config=model_config(path), loglik=path, ...)`` passes them on.
Nothing heavy is imported here. docs/hssm.md has an example for each type of network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanline.errors import UserError
from lanline.files import write_json

if TYPE_CHECKING:
    from lanline.networks.specification import NetworkSpec

FILE = "hssm.json"
FORMAT_VERSION = 1
VERSION = "0.5"  # of HSSM, the newest, which all of this is tested with
BACKENDS = ("jax", "pytensor")
# HSSM's pytensor interpreter lacks their operators, or takes the largest value of all trials for a relu. Of a network
# with features in front of its layers it lacks products and quotients.
JAX_ONLY = ("relu", "gelu", "elu")
_STARTS = {"v": 0.0, "a": 1.5, "t": 0.025}  # initial values of HSSM's own, whatever the bounds are


def backends(activations: Sequence[str]) -> tuple[str, ...]:
    """The backends of HSSM that compute a network with these activations, whatever its type."""
    return BACKENDS[:1] if set(activations) & set(JAX_ONLY) else BACKENDS


def choice_file(choice: int) -> str:
    """Name of the file of a cpn that HSSM 0.5 loads: the parameters in, the log-probability of one choice out."""
    return f"hssm-{VERSION}_choice_{choice}.onnx"


def loads(spec: NetworkSpec) -> str | None:
    """Why a released HSSM does not load the network's ``model.onnx`` by itself, or None if it does."""
    if spec.network_type != "cpn":
        return None
    return (
        f"HSSM {VERSION} does not tell a cpn which response was given: load {choice_file(spec.choices[-1])}, or make "
        "the response an extra field (docs/hssm.md)"
    )


def description(spec: NetworkSpec, bounds: Mapping[str, tuple[float, float | str]]) -> dict[str, Any]:
    """The content of ``hssm.json``.

    Args:
        spec: the network.
        bounds: of the parameters in training; where one is another parameter, that one's own bound counts.
    """

    def number(param: str, side: int) -> float:
        bound = bounds[param][side]
        return number(bound, side) if isinstance(bound, str) else float(bound)

    # HSSM has no parameter deadline, it is a column of the data.
    params = [param for param in spec.params if param != "deadline"]
    extra = ["deadline"] if "deadline" in spec.params else []
    is_cpn = spec.network_type == "cpn"
    return {
        "format_version": FORMAT_VERSION,
        "hssm": VERSION,
        "model": spec.model.removesuffix("_deadline"),
        "network_type": spec.network_type,
        "list_params": params,
        "bounds": {param: [number(param, 0), number(param, 1)] for param in params},
        "choices": list(spec.choices),
        "response": ["rt", "response"] if spec.network_type == "lan" else [],
        "extra_fields": extra,
        "backends": list(BACKENDS[:1] if spec.structure else backends(spec.activations)),
        "inputs": [*params, *extra, *(["rt", "response"] if spec.network_type == "lan" else ["response"] * is_cpn)],
        "choice_files": {str(choice): choice_file(choice) for choice in spec.choices} if is_cpn else {},
    }


def read_description(path: Path | str) -> dict[str, Any]:
    """``hssm.json`` of a network.

    Args:
        path: an ONNX file, or the network's folder.

    Raises:
        UserError: the file is missing, or is not what it should be.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path.with_name(FILE)
    try:
        content = json.loads(file.read_text())
        version = content["format_version"]
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; HSSM needs what stands there: train the network again") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{file} does not describe a network for HSSM: {error!r}") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{file}: format version {version}, this lanline reads {FORMAT_VERSION}")
    return content


def model_config(path: Path | str, backend: str = "jax") -> dict[str, Any]:
    """The ``model_config`` of ``hssm.HSSM`` for a network that is its ``loglik``.

    Args:
        path: ONNX file of a lan, or its folder.
        backend: of HSSM: jax or pytensor.

    Returns:
        list_params in the network's order, bounds as trained and uniform priors within them (HSSM's own prior of t has
        no upper end), choices, response columns, backend, and extra_fields if there are any.

    Raises:
        UserError: the network is not of type lan, the backend does not compute it, or ``hssm.json`` is missing.
    """
    network = read_description(path)
    if network["network_type"] != "lan":
        raise UserError(
            f"{path} is of type {network['network_type']}, not lan: give it as loglik_missing_data, beside the "
            "model_config of a lan"
        )
    if backend not in network["backends"]:
        able = " and ".join(network["backends"])
        raise UserError(
            f"{path}: HSSM {VERSION}'s {backend} backend does not compute its activations; {able} does (pytensor: only "
            "networks with features: raw and tanh, sigmoid or softplus)"
        )
    config = {
        "list_params": network["list_params"],
        "bounds": {param: tuple(bounds) for param, bounds in network["bounds"].items()},
        "default_priors": {param: _prior(param, *bounds) for param, bounds in network["bounds"].items()},
        "choices": tuple(network["choices"]),
        "response": tuple(network["response"]),
        "backend": backend,
    }
    return config | ({"extra_fields": network["extra_fields"]} if network["extra_fields"] else {})


def _prior(param: str, lower: float, upper: float) -> dict[str, Any]:
    prior: dict[str, Any] = {"name": "Uniform", "lower": lower, "upper": upper}
    if param in _STARTS and not lower < _STARTS[param] < upper:
        # Below the rts, where the likelihood has a gradient.
        prior["initval"] = lower + (upper - lower) * (0.02 if param == "t" else 0.5)
    return prior


def with_extra_fields(path: Path | str, fields: Sequence[str], folder: Path | str) -> Path:
    """A copy of a lan that takes further columns of the data, and ignores them.

    HSSM gives extra fields to the network for missing rts and to the likelihood alike. Imports onnx.

    Args:
        path: ONNX file of a lan, with ``hssm.json`` beside it.
        fields: names of the columns, in the order that the network for missing rts takes them in.
        folder: where ``model.onnx`` and ``hssm.json`` go.

    Returns:
        The new ONNX file.
    """
    import numpy as np
    import onnx

    network, model = read_description(path), onnx.load(path)
    given = network["inputs"]
    n_own = len(network["list_params"]) + len(network["extra_fields"])
    columns = [*given[:n_own], *fields, *given[n_own:]]
    pick = np.delete(np.eye(len(columns), dtype=np.float32), range(n_own, n_own + len(fields)), axis=1)
    graph = model.graph
    old = graph.input[0].name
    graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("columns", onnx.TensorProto.FLOAT, [1, len(columns)]))
    graph.initializer.append(onnx.numpy_helper.from_array(pick, "columns.own"))
    graph.node.insert(0, onnx.helper.make_node("MatMul", ["columns", "columns.own"], [old]))
    onnx.checker.check_model(model, full_check=True)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, folder / "model.onnx")
    extra = [*network["extra_fields"], *fields]
    write_json(folder / FILE, {**network, "extra_fields": extra, "inputs": columns})
    return folder / "model.onnx"
