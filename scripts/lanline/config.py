"""The configuration of a run: its types, their checks, and one clear message for each mistake.

Every key is explained in config/README.md; config/schema.json is generated from these types (`make schema`).
Only light imports here: every job of the workflow parses the configuration again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from lanline.errors import UserError, did_you_mean
from lanline.mistakes import explain
from lanline.models import Model, get_model

Framework = Literal["torch", "jax"]
NetworkType = Literal["lan", "cpn", "opn", "gonogo"]
Activation = Literal["tanh", "relu", "sigmoid", "softplus", "gelu", "elu"]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]  # of files and folders
NetworkName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=60)]
ExperimentName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=256)]  # MLflow's database has no more
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
LogDensity = Annotated[float, Field(ge=-1e6, lt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
NOT_RECIPE = {"shards", "shards_per_job", "validation_fraction", "accept_problems"}  # keys of data
WHICH_TRAININGS = {"frameworks", "seeds", "seeds_per_job"}  # keys of training that are no settings of one
MOST_LATE = 0.5  # share of thetas without any response
Interval = Annotated[tuple[float, float], Strict(False)]  # YAML has lists, not tuples


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Tracking(Section):
    """Where MLflow keeps its record."""

    uri: str | None = Field(
        None,
        description="MLflow store; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in this folder",
    )
    artifact_location: str | None = Field(
        None,
        description="root for artifacts; default: MLFLOW_ARTIFACT_LOCATION, else mlartifacts beside the SQLite file; "
        "a server decides itself",
    )
    on_outage: Literal["spool", "fail"] = Field(
        "spool",
        description="when the store cannot be reached: keep the record on disk and continue, or stop at once",
    )


class ModelEntry(Section):
    """A model to train networks for. In the list of models a bare name stands for {name: ...}."""

    name: str = Field(description="name in ssm-simulators' registry, e.g. ddm or angle")
    bounds: dict[str, Interval] = Field(
        default_factory=dict, description="narrower parameter bounds than the registry's: {v: [-2, 2]}"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        registered = get_model(self.name)
        for param, (lower, upper) in self.bounds.items():
            if param not in registered.bounds:
                known = ", ".join(registered.params)
                hint = did_you_mean(param, registered.params)
                raise UserError(f"bounds.{param}: {self.name} has no such parameter; it has {known}.{hint}")
            low, high = registered.bounds[param]
            if not (low <= lower < upper) or (not isinstance(high, str) and upper > high):
                raise UserError(f"bounds.{param}: [{lower}, {upper}] is not within ssm-simulators' [{low}, {high}]")
        return self

    def resolve(self) -> Model:
        """The registered model with this entry's bounds."""
        return get_model(self.name).within(self.bounds)


class Mixture(Section):
    """Shares of the rows of a data set by where their rt comes from; they add up to 1."""

    density: Fraction = Field(0.8, description="rt and choice drawn from the model's own density")
    uniform: Fraction = Field(0.1, description="rt uniform between 0 and max_t, choice uniform")
    negative: Fraction = Field(0.1, description="rt uniform between -1 and 0: the label is the floor")

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = self.density + self.uniform + self.negative
        if abs(total - 1) > 1e-9:
            raise UserError(f"the shares density, uniform and negative add up to {total:g}, not 1")
        return self


class Data(Section):
    """Training data: how many rows, from which engine, with which labels."""

    engine: Literal["auto", "closed_form", "first_passage", "simulation"] = Field(
        "auto", description="where labels come from; auto takes the best available for a model"
    )
    target: Literal["continuous", "euler"] = Field(
        "continuous",
        description="the density of the model as published, or of its Euler simulation with step delta_t",
    )
    delta_t: Positive = Field(0.001, description="step of that Euler simulation, seconds (target euler)")
    max_t: Positive = Field(20.0, description="time limit of a trial, seconds; later responses are omissions")
    n_trajectories: Count = Field(20_000, description="simulated trials per theta (engine simulation)")
    shards: Annotated[int, Field(ge=2, le=100_000)] = Field(12, description="number of files")
    shards_per_job: Literal[1, 10, 100, 1000] = Field(
        1, description="files made by one job, so that a cluster job lasts minutes; shards must be a multiple of it"
    )
    thetas_per_shard: Count = Field(5_000, description="parameter vectors in a file")
    theta_sampling: Literal["uniform", "sobol"] = Field(
        "uniform", description="parameter vectors at random, or for each shard a scrambled Sobol sequence"
    )
    rows_per_theta: Count = Field(100, description="rows (rt, choice, label) for each parameter vector")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of the shards that is held out to validate training (at least one)"
    )
    floor: LogDensity = Field(-66.77497, description="lowest log-likelihood that a label can have")
    mixture: Mixture = Mixture()
    accept_problems: bool = Field(False, description="train on data that fail validation; the network's records say so")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.shards % self.shards_per_job:
            raise UserError(f"shards is {self.shards}, not a multiple of shards_per_job ({self.shards_per_job})")
        if self.target == "euler" and self.delta_t >= self.max_t:
            raise UserError(f"delta_t ({self.delta_t:g} s) must be shorter than max_t ({self.max_t:g} s)")
        return self

    @property
    def rows_per_shard(self) -> int:
        return self.thetas_per_shard * self.rows_per_theta

    @property
    def n_validation_shards(self) -> int:
        """Shards held out for validation: the first ones, so that a new shard does not change them."""
        return min(max(1, round(self.validation_fraction * self.shards)), self.shards - 1)


class Training(Section):
    """How networks are trained: the same keys for both frameworks."""

    frameworks: Annotated[list[Framework], Field(min_length=1)] = Field(["torch", "jax"])
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field([1], description="one network for each")
    seeds_per_job: Literal[1, "all"] = Field(
        1, description="all: one job trains a network for every seed, one after the other; small ones take less time so"
    )
    epochs: Count = 3
    batch_size: Count = 1000
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 5e-3
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.0, description="decoupled with adamw, added to the gradient with adam and sgd"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="sgd only")
    schedule: Literal["cosine", "exponential", "multiply", "reduce_on_plateau", "constant"] = "cosine"
    warmup_fraction: Fraction = Field(0.02, description="share of all steps in which the rate rises from 0")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1,
        description="exponential: rate at the end over rate at the start; multiply: factor after every epoch; "
        "reduce_on_plateau: factor of a cut",
    )
    patience: Count = Field(2, description="reduce_on_plateau: epochs without improvement before a cut")
    threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="reduce_on_plateau: share by which the validation loss must fall to count as improvement"
    )
    min_learning_rate: Annotated[float, Field(ge=0)] = Field(
        0.0, description="reduce_on_plateau: no cut goes below this rate"
    )
    loss: Literal["huber", "mse"] = Field("huber", description="lan only; the other types use the cross-entropy")
    huber_delta: Positive = 0.03
    label_floor: float | None = Field(
        None,
        description="lan only: lower labels are raised to this log-likelihood; with a leading term by default to -16",
    )
    gradient_clip: Positive | None = Field(None, description="largest global norm of the gradient")
    early_stopping: Count | None = Field(None, description="epochs without a lower validation loss before a stop")
    keep: Literal["last", "best"] = Field("last", description="weights of the last epoch, or of the best one")
    buffer_gb: Positive = Field(
        2.0, description="memory for training rows, gigabytes; larger data streams through a buffer of this size"
    )
    checkpoint_minutes: Positive = Field(
        5.0, description="time between checkpoints; one is also written after every epoch"
    )
    device: Literal["cpu", "gpu"] = "cpu"

    @field_validator("frameworks", "seeds")
    @classmethod
    def _differ(cls, entries: list[Any]) -> list[Any]:
        for entry in entries:
            if entries.count(entry) > 1:
                raise UserError(f"{entry} is listed twice")
        return entries


class Network(Section):
    """A network specification. The output layer and its loss follow from the network type."""

    name: NetworkName = Field(description="used in file names and MLflow runs")
    network_type: NetworkType = Field(
        "lan",
        description="lan: log-likelihood of (rt, choice); cpn: choice probabilities; opn: probability of an omission; "
        "gonogo: probability of no go response",
    )
    features: Literal["auto", "raw"] = Field(
        "auto",
        description="auto: what is known of the model in closed form is computed in front of the layers, which learn "
        "only the rest; raw: layers on the raw inputs, the only kind that LANfactory's loaders can open",
    )
    hidden_layers: Annotated[list[Count], Field(min_length=1)] = Field([100, 100, 100])
    activations: list[Activation] = Field(["tanh", "tanh", "tanh"], description="one for each hidden layer")
    training: Training = Field(Training(), description="keys of the section training that differ for this network")

    @field_serializer("training")
    def _given_only(self, training: Training) -> dict[str, Any]:
        return training.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if shared := self.training.model_fields_set & WHICH_TRAININGS:
            raise UserError(f"training.{min(shared)} is the same for all networks: set it in the section training")
        of_lan = self.training.model_fields_set & {"loss", "huber_delta", "label_floor"}
        if of_lan and self.network_type != "lan":
            raise UserError(
                f"training.{min(of_lan)} applies only to lan networks; a {self.network_type} is trained "
                "with the cross-entropy of its probabilities"
            )
        if len(self.hidden_layers) != len(self.activations):
            raise UserError(
                f"{len(self.hidden_layers)} hidden_layers need as many activations, not {len(self.activations)}"
            )
        return self


class Gate(Section):
    """What a network must reach to pass its evaluation."""

    max_mae: Positive = Field(0.06, description="mean absolute error in log-likelihood or log-probability")
    mass: Interval = Field((0.9, 1.1), description="lan: total probability over the grid of thetas, 5 %..95 %")
    max_probability_error: Positive = Field(
        0.02, description="cpn, opn, gonogo: mean absolute error in probability over thetas"
    )

    @field_validator("mass")
    @classmethod
    def _in_order(cls, mass: tuple[float, float]) -> tuple[float, float]:
        if not mass[0] < mass[1]:
            raise UserError(f"{list(mass)}: expected the lower bound first")
        return mass


class Evaluation(Section):
    """How a trained network is evaluated."""

    trials: Count = Field(100_000, description="simulated trials that the errors are averaged over")
    min_log_density: float = Field(-10.0, description="errors count where the reference is above this")
    mass_thetas: Count = Field(200, description="thetas over which the total probability is computed")
    seed: Seed = Field(
        20_000, description="of the evaluation's thetas and trials, which are never those of the training data"
    )
    gate: Gate = Gate()


def _entry_from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Config(Section):
    """The whole configuration of a run."""

    name: RunName = Field(description="of this run; its files are in results/<name> and reports/<name>")
    seed: Seed = Field(42, description="of the training data")
    mlflow_tracking: bool = Field(False, description="record runs in MLflow")
    mlflow_experiment_name: ExperimentName | None = Field(
        None, description="experiment of the trainings; default: MLFLOW_EXPERIMENT_NAME, then <model>-training"
    )
    tracking: Tracking = Tracking()
    models: Annotated[
        list[Annotated[ModelEntry, BeforeValidator(_entry_from_name, json_schema_input_type=ModelEntry | str)]],
        Field(min_length=1),
    ]
    data: Data = Data()
    networks: Annotated[list[Network], Field(min_length=1)] = [Network(name="lan")]
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @field_validator("models", "networks")
    @classmethod
    def _names_differ(cls, entries: list[Any]) -> list[Any]:
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"'{name}' is listed twice")
        return entries

    @model_validator(mode="after")
    def _omissions_need_a_deadline(self) -> Self:
        for network in self.networks:
            without = [entry.name for entry in self.models if "deadline" not in get_model(entry.name).params]
            if network.network_type == "opn" and without:
                raise UserError(
                    f"network '{network.name}' is an opn, but {without[0]} has no deadline: "
                    f"train it for {without[0]}_deadline"
                )
        return self

    def model(self, name: str) -> Model:
        """The model of that name with the bounds of this configuration."""
        return next(entry for entry in self.models if entry.name == name).resolve()

    def network(self, name: str) -> Network:
        return next(network for network in self.networks if network.name == name)

    def training_of(self, network: str) -> Training:
        """How that network is trained: the section training, and what differs for the network."""
        own = self.network(network).training
        return self.training.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})

    def data_recipe(self, model: str) -> dict[str, Any]:
        """What determines the content of a shard of ``model``, as plain JSON.

        The number of shards and how jobs share them are left out on purpose: a new shard leaves the others as they are.
        So is what is done about problems with them.
        """
        entry = next(entry for entry in self.models if entry.name == model)
        settings = self.data.model_dump(mode="json", exclude=NOT_RECIPE)
        return {
            "model": model,
            "bounds": entry.model_dump(mode="json")["bounds"],
            "seed": self.seed,
            **settings,
        }


def parse_config(values: Mapping[str, Any], source: str = "configuration") -> Config:
    """Check ``values`` and return the typed configuration.

    Raises:
        UserError: with one line for each mistake, naming the key, the value and what is allowed.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        lines = [f"  {explain(mistake, Config)}" for mistake in error.errors()]
        raise UserError("\n".join([f"{source} has {len(lines)} mistake(s):", *lines])) from None


def check_time_limit(config: Config) -> None:
    """Refuse a time limit before which most thetas have no response: omissions alone train nothing.

    Raises:
        UserError: naming the model.
    """
    for entry in config.models:
        lower, upper = entry.resolve().bounds.get("t", (0.0, 0.0))
        if isinstance(upper, str) or upper <= lower:
            continue
        if (late := (upper - config.data.max_t) / (upper - lower)) > MOST_LATE:
            raise UserError(
                f"data.max_t is {config.data.max_t:g} s: at {min(late, 1):.0%} of the thetas of {entry.name} "
                f"the non-decision time t ({lower:g} to {upper:g} s) alone exceeds it, and every trial is an omission. "
                "Raise max_t, or narrow the bounds of t"
            )


def check_experiment_names(names: Iterable[str]) -> None:
    """Refuse names that MLflow would, wherever they come from (an option, the environment).

    Raises:
        UserError: a name is empty, too long, or has control characters.
    """
    for name in names:
        try:
            TypeAdapter(ExperimentName).validate_python(name)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise UserError(f"MLflow experiment name {name[:40]!r}...: {reason}") from None


def schema_text() -> str:
    """The JSON schema of a configuration file. No key is required: a file may be an overlay of config.yaml."""
    schema = Config.model_json_schema()
    del schema["required"]
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    # `python -m lanline.config config/schema.json`: the schema that editors check YAML files with.
    Path(sys.argv[1]).write_text(schema_text())
