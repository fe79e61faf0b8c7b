"""The files that LANfactory's loaders read, under LANfactory's names.

PyTorch: a state dict for ``TorchMLP``; JAX: flax's bytes for ``JaxMLP``; for both network_config, train_config,
data_details and the training history. The pickles hold dicts of numbers and texts only.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lanline.config import WHICH_TRAININGS, Framework, Training
from lanline.files import atomic_path, write_text
from lanline.networks.specification import NetworkSpec, Weights, bias_name, weight_name

ACTIVATIONS = ("tanh", "relu", "sigmoid")  # all that LANfactory has
OUTPUT_TYPES = {"lan": "logprob", "cpn": "logits", "opn": "logits", "gonogo": "logits"}
_FLAX_ARRAY = 1  # msgpack extension type of flax.serialization


def write_lanfactory_files(
    folder: Path,
    run: str,
    framework: Framework,
    spec: NetworkSpec,
    weights: Weights,
    settings: Training,
    history: list[dict[str, float]],
    files: dict[str, list[str]],
    origin: dict[str, Any],
) -> list[Path]:
    """Write what LANfactory 0.7 leaves after ``torchtrain`` or ``jaxtrain``, but for the ONNX file.

    Args:
        folder: folder to write to.
        run: goes where LANfactory has its run id.
        framework: torch writes the state dict, jax flax's bytes.
        spec: the network.
        weights: for raw inputs.
        settings: how it was trained.
        history: metrics of each epoch, with ``validation_loss``.
        files: names of the files that were used, under ``training`` and ``validation``.
        origin: ids of the data.

    Returns:
        The files; none if `why_not` says that LANfactory could not use them.
    """
    if why_not(spec):
        return []
    folder = Path(folder)
    network = _network_config(spec)
    if framework == "torch":
        start = f"{spec.model}_{spec.network_type}_{run}_"
        state, table = folder / f"{start}train_state_dict.pt", folder / f"{start}training_history.csv"
    else:
        # Two underscores: LANfactory joins the parts of a name that ends in one already.
        start = f"{run}_{spec.network_type}_{spec.model}__"
        state, table = folder / f"{start}train_state.jax", folder / f"{start}jax_training_history.csv"
    pickles = {
        folder / f"{run}_{spec.network_type}_{spec.model}_network_config.pickle": network,
        folder / f"{start}train_config.pickle": _train_config(spec, settings, network),
        folder / f"{start}data_details.pickle": _data_details(framework, files, origin),
    }
    for path, content in pickles.items():
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            pickle.dump(content, handle)
    with atomic_path(state) as temporary:
        if framework == "torch":
            _save_state_dict(temporary, weights, len(spec.layers))
        else:
            temporary.write_bytes(flax_bytes(weights, len(spec.layers)))
    lines = [f"{i},{float(i)},{epoch['validation_loss']}\n" for i, epoch in enumerate(history)]
    write_text(table, "".join([",epoch,val_loss\n", *lines]))
    return [state, table, *pickles]


def why_not(spec: NetworkSpec) -> str | None:
    """Why LANfactory's loaders cannot open a network, or None."""
    if spec.structure is not None:
        return "they know no features in front of the layers (features: raw makes a network that they open)"
    if not set(spec.activations) <= set(ACTIVATIONS):
        return f"they know the activations {', '.join(ACTIVATIONS)} only"
    if spec.layers[-1] > 1:
        return "they would take each of several outputs for the logit of a probability of its own"
    return None


def _network_config(spec: NetworkSpec) -> dict[str, Any]:
    return {
        "layer_sizes": list(spec.layers),
        "activations": [*spec.activations, "linear"],
        "train_output_type": OUTPUT_TYPES[spec.network_type],
        "network_type": spec.network_type,
    }


def _train_config(spec: NetworkSpec, settings: Training, network: dict[str, Any]) -> dict[str, Any]:
    """LANfactory's keys with what was really done, and lanline's own settings beside them."""
    return {
        "cpu_batch_size": settings.batch_size,
        "gpu_batch_size": settings.batch_size,
        "train_batch_size": settings.batch_size,
        "n_epochs": settings.epochs,
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "lr_scheduler": settings.schedule,
        "lr_scheduler_params": {},
        "weight_decay": settings.weight_decay,
        "loss": "bcelogit" if spec.gives_probabilities else settings.loss,
        "train_output_type": network["train_output_type"],
        "layer_sizes": network["layer_sizes"],
        "activations": network["activations"],
        "features_key": f"{spec.network_type}_data",
        "label_key": f"{spec.network_type}_labels",
        "shuffle_files": True,
        "save_history": True,
        "lanline": settings.model_dump(mode="json", exclude=WHICH_TRAININGS),
    }


def _data_details(framework: Framework, files: dict[str, list[str]], origin: dict[str, Any]) -> dict[str, Any]:
    ids = "datafile_ids" if framework == "torch" else "data_file_ids"  # LANfactory's two spellings
    return {
        "train_data_generator_config": origin,
        f"train_{ids}": files["training"],
        "valid_data_generator_config": origin,
        f"valid_{ids}": files["validation"],
    }


def _save_state_dict(path: Path, weights: Weights, layers: int) -> None:
    import torch  # here only: a training in JAX does not load PyTorch

    state = {}
    for layer in range(layers):
        # TorchMLP's list of layers counts the activations too.
        state[f"layers.{2 * layer}.weight"] = torch.from_numpy(weights[weight_name(layer)])
        state[f"layers.{2 * layer}.bias"] = torch.from_numpy(weights[bias_name(layer)])
    torch.save(state, path)


def flax_bytes(weights: Weights, layers: int) -> bytes:
    """What ``flax.serialization.to_bytes`` gives for the params of LANfactory's ``JaxMLP``.

    msgpack maps, with arrays as an extension of (shape, dtype, bytes): written without flax, which lanline needs for
    nothing else.
    """
    import msgpack

    def array(value: np.ndarray) -> msgpack.ExtType:
        content = (value.shape, value.dtype.name, value.tobytes())
        return msgpack.ExtType(_FLAX_ARRAY, msgpack.packb(content, use_bin_type=True))

    params = {
        f"layers_{layer}": {"kernel": array(weights[weight_name(layer)].T), "bias": array(weights[bias_name(layer)])}
        for layer in range(layers)
    }
    return msgpack.packb({"params": params})
