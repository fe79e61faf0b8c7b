"""The settings of one training in a configuration file, whichever program it was written for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lanline.commands.foreign_config import LanfactoryFile, check, is_foreign
from lanline.config import Config, Data, Framework, parse_config
from lanline.errors import UserError
from lanline.files import read_yaml
from lanline.logs import say
from lanline.stages.train_network import split_files


@dataclass(frozen=True)
class Plan:
    """Settings of one training; the model may only be known from the data.

    Attributes:
        framework: torch or jax.
        values: lanline configuration as plain values, without what the options and the data bring.
        source: where they were read, for messages.
        network: index of the network in it.
        seed: of initial weights and of the order of rows.
        models: models that the file names; empty if it leaves that to the data.
        data_folder: folder that the file names.
        max_files: files for training and validation together.
        training_share: share of the files to train on, if the file is LANfactory's.
    """

    framework: Framework
    values: dict[str, Any]
    source: str
    network: int
    seed: int
    models: tuple[str, ...] = ()
    data_folder: Path | None = None
    max_files: int | None = None
    training_share: float | None = None

    def config(self, model: str, options: Mapping[str, Any]) -> Config:
        """The checked configuration of the training of one model, with the keys that ``options`` overrides."""
        named = {entry if isinstance(entry, str) else entry["name"]: entry for entry in self.values.get("models", [])}
        return parse_config({"name": model, **self.values, "models": [named.get(model, model)], **options}, self.source)

    def model(self, of_data: str | None) -> str:
        """The model to train for, given the one that the data say they are of."""
        if of_data is None and len(self.models) != 1:
            raise UserError("the data do not name their model: set MODEL in the file of --config-path")
        if of_data is not None and self.models and of_data not in self.models:
            raise UserError(f"{self.source} is for the model {', '.join(self.models)}, but the data are of {of_data}")
        return of_data or self.models[0]

    def split(self, files: Sequence[Path], data: Data) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Files to train on and to validate on; the limit on files holds for both together.

        Raises:
            UserError: there are fewer than two files.
        """
        used = sorted(files, key=lambda path: path.name)[: self.max_files]
        if len(used) < 2:
            raise UserError(f"found {len(used)} training file; need at least 2, one to train on and one to validate on")
        if self.training_share is None:
            n_validation = round(data.validation_fraction * len(used))
        else:
            n_validation = len(used) - int(self.training_share * len(used))
        return split_files(used, min(max(1, n_validation), len(used) - 1))


def read_plan(path: Path | None, framework: Framework, network_id: int, seed: int | None) -> Plan:
    """The plan of a LANfactory file, a lanline file, or lanline's defaults.

    Raises:
        UserError: the file cannot be read, has mistakes, or does not have that network.
    """
    if path is None:
        return _own_plan({}, "lanline's default configuration", framework, network_id, seed)
    values = read_yaml(path)
    if not is_foreign(values):
        return _own_plan(values, str(path), framework, network_id, seed)
    file = check(LanfactoryFile, values, str(path))
    network = file.network(network_id)
    for note in file.notes():
        say(f"{path}: {note}")
    device = "gpu" if file.CPU_BATCH_SIZE != file.GPU_BATCH_SIZE and has_gpu(framework) else "cpu"
    return Plan(
        framework=framework,
        values={"networks": [network], "training": file.training(device)},
        source=str(path),
        network=0,
        seed=1 if seed is None else seed,
        models=(file.MODEL,),
        data_folder=Path(file.TRAINING_DATA_FOLDER) if file.TRAINING_DATA_FOLDER else None,
        max_files=file.max_files(network_id),
        training_share=file.TRAIN_VAL_SPLIT,
    )


def _own_plan(values: dict[str, Any], source: str, framework: Framework, network_id: int, seed: int | None) -> Plan:
    # An overlay need not name models; any registered one stands in for the check.
    config = parse_config({"name": "command", "models": ["ddm_deadline"], **values}, source)
    if not 0 <= network_id < len(config.networks):
        raise UserError(f"--network-id {network_id}: {source} has {len(config.networks)} networks, counted from 0")
    return Plan(
        framework=framework,
        values=values,
        source=source,
        network=network_id,
        seed=config.training.seeds[0] if seed is None else seed,
        models=tuple(entry.name for entry in config.models) if "models" in values else (),
    )


def has_gpu(framework: Framework) -> bool:
    """Whether the framework finds a GPU: LANfactory's files have a batch size for each case."""
    try:
        module = importlib.import_module(framework)
    except ModuleNotFoundError:
        raise UserError(f"framework {framework} is not installed; install lanline[{framework}]") from None
    if framework == "torch":
        return module.cuda.is_available()
    # In a separate process: JAX counts its CPU devices when it is first asked, and the training decides how many.
    question = "import jax, sys; sys.exit(jax.default_backend() != 'gpu')"
    has_plugin = bool(entry_points(group="jax_plugins"))
    return has_plugin and subprocess.run([sys.executable, "-c", question], capture_output=True).returncode == 0
