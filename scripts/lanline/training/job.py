"""What a training is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lanline.config import WHICH_TRAININGS, Framework, Training
from lanline.files import sha256_json
from lanline.fingerprints import training_code
from lanline.networks.specification import NetworkSpec, Weights
from lanline.versions import library_versions

Metrics = dict[str, float]


@dataclass(frozen=True)
class Job:
    """Everything that determines the numbers of a training.

    Attributes:
        spec: the network.
        settings: how it is trained.
        framework: torch or jax.
        seed: of the initial weights and of the order of rows.
        training_files: shards to train on.
        validation_files: shards to validate on, all rows after every epoch.
        data_id: hash of the data set.
        threads: cores to use; another number rounds sums differently. A GPU needs none.
    """

    spec: NetworkSpec
    settings: Training
    framework: Framework
    seed: int
    training_files: Sequence[Path]
    validation_files: Sequence[Path]
    data_id: str
    threads: int

    def key(self) -> str:
        """Hash by which a checkpoint is known to be of this training."""
        ignored = WHICH_TRAININGS | {"checkpoint_minutes"}
        values = {
            **vars(self),
            "spec": self.spec.to_json(),
            "settings": self.settings.model_dump(mode="json", exclude=ignored),
            "training_files": [Path(path).name for path in self.training_files],
            "validation_files": [Path(path).name for path in self.validation_files],
            "threads": None,
            **made_with(self.framework, self.settings.device, self.threads),
        }
        return sha256_json(values)


def made_with(framework: Framework, device: str, threads: int) -> dict[str, Any]:
    """The code, the libraries and, on a CPU, the number of threads that decide a network's weights."""
    libraries = {"torch": ["torch"], "jax": ["jax", "jaxlib"]}[framework]
    made = {"code": training_code(framework), "versions": library_versions("numpy", *libraries)}
    return made | ({"threads": threads} if device == "cpu" else {})


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        weights: for raw inputs.
        forward: the trainer's own forward pass, raw inputs (n, D) as the exported network takes them to values (n,).
        sample: such inputs of validation rows, n <= 1000, to compare an export with ``forward``.
        history: metrics of each epoch.
        kept: those of the epoch that the weights are of: the last one, or the best.
        timings: seconds of start_up (until the first step), training (steps alone) and validation, and their total;
            training and validation of interrupted attempts are part of it.
        resumed: whether it was resumed from a checkpoint.
    """

    weights: Weights
    forward: Callable[[np.ndarray], np.ndarray]
    sample: np.ndarray
    history: list[Metrics]
    kept: Metrics
    timings: dict[str, float]
    resumed: bool
