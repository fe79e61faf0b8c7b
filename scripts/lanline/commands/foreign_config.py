"""Configuration files of LANfactory (`jaxtrain`, `torchtrain`) and ssm-simulators (`generate`), run unchanged.

Their keys become lanline's own sections; what lanline cannot honour is refused by name.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from lanline.config import Count, NetworkType, Positive, Section
from lanline.errors import UserError, did_you_mean
from lanline.files import redact
from lanline.mistakes import number_as_text
from lanline.models import get_model
from lanline.networks.specification import n_outputs

# LANfactory's loss for a network that gives log-likelihoods: torch.nn.functional.huber_loss with its own delta.
HUBER_DELTA = 1.0
_LOG = re.compile(r"(?:np|numpy|math)\.log\(\s*([-+0-9.eE]+)\s*\)")

File = TypeVar("File", bound=Section)


class SchedulerParams(Section):
    """Parameters of LANfactory's schedulers, with its defaults."""

    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    patience: Annotated[int, Field(ge=0)] = 2
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.001
    min_lr: Annotated[float, Field(ge=0)] = 1e-8
    verbose: bool = False  # lanline always records the rate of every epoch


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class LanfactoryFile(Section):
    """LANfactory's training configuration; keys that are left out have the values of the file it comes with."""

    NETWORK_TYPE: str
    MODEL: str
    LAYER_SIZES: Annotated[list[list[Count]], Field(min_length=1)]
    ACTIVATIONS: Annotated[list[list[str]], Field(min_length=1)]
    GENERATOR_APPROACH: str | None = None  # says how the data were made; lanline looks at what the files hold
    TRAINING_DATA_FOLDER: str | None = None
    N_EPOCHS: Count = 20
    CPU_BATCH_SIZE: Count = 1000
    GPU_BATCH_SIZE: Count = 50_000
    OPTIMIZER_: Literal["adam", "sgd"] = "adam"
    LEARNING_RATE: Positive = 0.001
    WEIGHT_DECAY: Annotated[float, Field(ge=0)] = 0.0
    LR_SCHEDULER: Literal["reduce_on_plateau", "multiply"] | None = "reduce_on_plateau"
    LR_SCHEDULER_PARAMS: SchedulerParams | None = None
    TRAIN_VAL_SPLIT: Annotated[float, Field(gt=0, le=1)] = 0.98
    N_TRAINING_FILES: Annotated[list[Count], BeforeValidator(_listed), Field(min_length=1)] = Field([10_000])
    LABELS_LOWER_BOUND: str | float = Field("np.log(1e-7)", validate_default=True)
    SHUFFLE: bool = True  # see `notes`

    @field_validator("NETWORK_TYPE")
    @classmethod
    def _trained_here(cls, value: str) -> str:
        allowed = get_args(NetworkType)
        if value not in allowed:
            raise ValueError(f"lanline does not train networks of type '{value}'; it trains {', '.join(allowed)}")
        return value

    def notes(self) -> list[str]:
        """What lanline does in another way than the file says."""
        if self.SHUFFLE:
            return []
        return ["SHUFFLE: False has no effect: lanline always shuffles all rows, in an order that --seed fixes"]

    def max_files(self, network_id: int) -> int:
        """Files for training and validation together: one number, or one for each network.

        Raises:
            UserError: the list has none for this network.
        """
        if len(self.N_TRAINING_FILES) == 1:
            return self.N_TRAINING_FILES[0]
        if network_id >= len(self.N_TRAINING_FILES):
            raise UserError(
                f"--network-id {network_id}: N_TRAINING_FILES has {len(self.N_TRAINING_FILES)} numbers, counted from 0"
            )
        return self.N_TRAINING_FILES[network_id]

    @field_validator("LABELS_LOWER_BOUND")
    @classmethod
    def _number(cls, value: str | float) -> float:
        return parse_bound(value)

    def network(self, network_id: int) -> dict[str, Any]:
        """lanline's ``networks`` entry for one of the architectures.

        Raises:
            UserError: there is no such architecture, or its lists do not fit together.
        """
        if not 0 <= network_id < min(len(self.LAYER_SIZES), len(self.ACTIVATIONS)):
            raise UserError(
                f"--network-id {network_id}: LAYER_SIZES lists {len(self.LAYER_SIZES)} and ACTIVATIONS "
                f"{len(self.ACTIVATIONS)} networks, counted from 0"
            )
        sizes, activations = self.LAYER_SIZES[network_id], list(self.ACTIVATIONS[network_id])
        if activations[-1:] == ["linear"]:  # the output's, which LANfactory adds itself
            activations.pop()
        outputs = n_outputs(self.NETWORK_TYPE, get_model(self.MODEL))
        if sizes[-1] != outputs or len(activations) != len(sizes) - 1:
            raise UserError(
                f"network {network_id}: LAYER_SIZES {sizes} must end with the number of outputs of a "
                f"{self.NETWORK_TYPE} for {self.MODEL}, {outputs}, and ACTIVATIONS {activations} must name one "
                "activation for each layer before it"
            )
        return {
            "name": f"network{network_id}",
            "network_type": self.NETWORK_TYPE,
            "features": "raw",  # the only kind that LANfactory's loaders can open
            "hidden_layers": sizes[:-1],
            "activations": activations,
        }

    def training(self, device: str) -> dict[str, Any]:
        """lanline's section ``training`` for a device, cpu or gpu."""
        params = self.LR_SCHEDULER_PARAMS or SchedulerParams()
        return {
            "epochs": self.N_EPOCHS,
            "batch_size": self.GPU_BATCH_SIZE if device == "gpu" else self.CPU_BATCH_SIZE,
            "optimizer": self.OPTIMIZER_,
            "momentum": 0.0,
            "learning_rate": self.LEARNING_RATE,
            "weight_decay": self.WEIGHT_DECAY,
            "schedule": self.LR_SCHEDULER or "constant",
            "warmup_fraction": 0.0,
            "decay": params.factor,
            "patience": params.patience + 1,  # PyTorch cuts when the patience is exceeded, lanline when it is reached
            "threshold": params.threshold,
            "min_learning_rate": params.min_lr,
            "loss": "huber",
            "huber_delta": HUBER_DELTA,
            "label_floor": self.LABELS_LOWER_BOUND,
            "device": device,
        }


class Pipeline(Section):
    N_PARAMETER_SETS: Count
    N_SUBRUNS: Count = 1  # in how many parts ssm-simulators makes a file; lanline's parts do not show


class Simulator(Section):
    N_SAMPLES: Count = 2000
    DELTA_T: Positive = 0.001


class Samples(Section):
    N_SAMPLES_PER_PARAM: Count = 200


class Estimator(Section):
    TYPE: Literal["kde", "KDE"] = "kde"


# Keys of ssm-simulators before 0.11, in one level, and where they are today.
_FLAT = {
    "N_PARAMETER_SETS": ("PIPELINE", "N_PARAMETER_SETS"),
    "N_SUBRUNS": ("PIPELINE", "N_SUBRUNS"),
    "N_SAMPLES": ("SIMULATOR", "N_SAMPLES"),
    "DELTA_T": ("SIMULATOR", "DELTA_T"),
    "N_TRAINING_SAMPLES_BY_PARAMETER_SET": ("TRAINING", "N_SAMPLES_PER_PARAM"),
}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a file of ssm-simulators with the flat keys of older versions where they are today."""
    found = {key: value for key, value in values.items() if key not in _FLAT}
    for key, (section, name) in _FLAT.items():
        if key not in values:
            continue
        below = found.get(section, {})
        if not isinstance(below, dict) or name in below:
            raise UserError(f"{key} stands for {section}.{name}, which is there too: keep one of them")
        found[section] = {**below, name: values[key]}
    return found


class SsmsFile(Section):
    """Configuration of ssm-simulators' ``generate``."""

    MODEL: str
    GENERATOR_APPROACH: NetworkType  # a file has the arrays of every type
    PIPELINE: Pipeline
    SIMULATOR: Simulator = Simulator()
    TRAINING: Samples = Samples()
    ESTIMATOR: Estimator = Estimator()

    def data(self) -> dict[str, Any]:
        """lanline's section ``data``: labels by kernel density estimates of simulated trials, as the file says."""
        return {
            "engine": "simulation",
            "target": "euler",
            "delta_t": self.SIMULATOR.DELTA_T,
            "n_trajectories": self.SIMULATOR.N_SAMPLES,
            "thetas_per_shard": self.PIPELINE.N_PARAMETER_SETS,
            "rows_per_theta": self.TRAINING.N_SAMPLES_PER_PARAM,
        }


def parse_bound(value: str | float) -> float:
    """``np.log(1e-7)`` or a number, without evaluating anything."""
    text = str(value).strip()
    found = _LOG.fullmatch(text)
    try:
        number = math.log(float(found[1])) if found else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number or np.log(number), found {text!r}")
    return number


def is_foreign(values: dict[str, Any]) -> bool:
    """Whether a file is LANfactory's or ssm-simulators' (their keys are in capitals) and not lanline's own."""
    return "MODEL" in values or "NETWORK_TYPE" in values


def check(file: type[File], values: dict[str, Any], source: str) -> File:
    """The checked file.

    Raises:
        UserError: one line for each mistake, naming the key.
    """
    try:
        return file.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_explain(mistake, file)}" for mistake in error.errors()]
        raise UserError("\n".join([f"{source} has {len(lines)} mistake(s):", *lines])) from None


def _explain(mistake: dict[str, Any], file: type[Section]) -> str:
    key = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return f"{key}: unknown key.{did_you_mean(str(mistake['loc'][-1]), file.model_fields)}"
    if mistake["type"] == "missing":
        return f"{key}: required, but missing"
    if hint := number_as_text(mistake):
        return f"{key}: {hint}"
    message = mistake["msg"].removeprefix("Value error, ")
    return redact(f"{key}: {message}, found {mistake['input']!r}" if "found" not in message else f"{key}: {message}")
