"""How a file of training data was made, from its header, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from lanline.config import Data, Interval, ModelEntry, Section, Seed
from lanline.dataset.inventory import lineage_id
from lanline.dataset.shards import read_origin
from lanline.errors import UserError
from lanline.mistakes import explain
from lanline.models import Model, get_model

NOT_RECIPE = ("params", "all_bounds", "used_engine", "shard")  # what a shard's header has beside its recipe


class _Header(Section):
    """What stands in the header of a shard beside the settings of the section ``data``."""

    model: str
    bounds: dict[str, Interval]
    seed: Seed
    shard: Annotated[int, Field(ge=0)]
    params: Annotated[list[str], Field(min_length=1)]
    thetas_per_shard: Annotated[int, Field(ge=1)]
    rows_per_theta: Annotated[int, Field(ge=1)]
    all_bounds: Any = None
    used_engine: str | None = None


@dataclass(frozen=True)
class Recipe:
    """How one of lanline's shards was made.

    Attributes:
        model: with the bounds that thetas were drawn from.
        data: the settings, but for the number of shards.
        seed: of the training data.
        shard: number of the shard.
        values: the recipe as plain values; `lineage_id` is their hash.
    """

    model: Model
    data: Data
    seed: int
    shard: int
    values: Mapping[str, Any]

    @property
    def lineage_id(self) -> str:
        return lineage_id(self.values)


def read_recipe(path: Path) -> Recipe:
    """The recipe in the header of a shard.

    Raises:
        UserError: the file cannot be read, or its header lacks something or has it in another type.
    """
    origin = read_origin(path)
    if not isinstance(origin, dict):
        raise UserError(f"{path}: expected keys and values in its header")
    own = {key: value for key, value in origin.items() if key in _Header.model_fields}
    sizes = {key: origin[key] for key in ("thetas_per_shard", "rows_per_theta") if key in origin}
    settings = {key: value for key, value in origin.items() if key not in own}
    try:
        header = _Header.model_validate(own)
        model = ModelEntry(name=header.model, bounds=header.bounds).resolve()
        data = Data.model_validate({**settings, **sizes})
    except ValidationError as error:
        root = _Header if error.title == _Header.__name__ else Data
        mistakes = "; ".join(explain(mistake, root) for mistake in error.errors())
        raise UserError(f"{path}: invalid recipe in its header: {mistakes}") from None
    except UserError as error:
        raise UserError(f"{path}: invalid recipe in its header: {error}") from None
    if tuple(header.params) != model.params:
        raise UserError(f"{path} has the parameters {', '.join(header.params)}; expected {', '.join(model.params)}")
    values = {key: value for key, value in origin.items() if key not in NOT_RECIPE}
    return Recipe(model, data, header.seed, header.shard, values)


@dataclass(frozen=True)
class ForeignOrigin:
    """How a pickle of ssm-simulators was made, by its own account; see `lanline.dataset.foreign`.

    Attributes:
        model: as the registry has it.
        data: settings to compare its labels with the engine by.
        trials: simulated for each theta.
        contradictions: between its own labels.
    """

    model: Model
    data: Data
    trials: int
    contradictions: tuple[str, ...]


def foreign_origin(origin: Mapping[str, Any], model: str) -> ForeignOrigin:
    """From the header that `lanline.dataset.foreign.as_shard` wrote."""
    settings = origin.get("settings", {})
    return ForeignOrigin(
        model=get_model(model),
        data=Data(**{key: settings[key] for key in ("delta_t", "max_t", "floor") if key in settings}),
        trials=settings.get("n_samples", 1000),
        contradictions=tuple(origin.get("contradictions", ())),
    )
