"""The small JSON files that pass ids between rules: checked when read, written atomically, never with a password."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lanline.errors import UserError
from lanline.files import write_text

SCHEMA_VERSION: Final = 1


class Sidecar(BaseModel):
    """Base of all sidecars."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a sidecar.

        Raises:
            UserError: the file is missing, is not JSON, or does not have exactly the expected fields.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            mistakes = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
            raise UserError(f"{path} is not a valid {cls.__name__}: {mistakes}") from None


class Experiment(Sidecar):
    """One MLflow experiment; the id is null when tracking is off."""

    name: str
    experiment_id: str | None


class ExperimentsSidecar(Sidecar):
    """The experiments of a model, and the store that they are in (without credentials)."""

    tracking_uri: str | None
    data_generation: Experiment
    training: Experiment


class ShardSidecar(Sidecar):
    """Where one shard came from."""

    file: str
    model: str
    shard: int
    rows: int
    bytes: int
    sha256: str
    seed: int
    lineage_id: str
    engine: str
    seconds: float
    versions: dict[str, str]
    host: str
    job_id: str | None


class DatasetSidecar(Sidecar):
    """A data set as recorded: ids and where its inventory is."""

    model: str
    dataset_id: str
    lineage_id: str
    folder: str
    files: int
    rows: int
    tracking_uri: str | None
    experiment_id: str | None
    experiment_name: str
    run_id: str | None
    tracking_key: str | None
    accepted_problems: tuple[str, ...] = ()  # with the data, that their user wants to train on


class TrainingSidecar(Sidecar):
    """A training run."""

    name: str
    model: str
    network: str
    network_type: str
    framework: str
    seed: int
    dataset_id: str
    lineage_id: str
    data_generation_run_id: str | None
    data_generation_experiment_id: str | None
    tracking_uri: str | None
    experiment_id: str | None
    experiment_name: str
    run_id: str | None
    tracking_key: str | None
    accepted_problems: tuple[str, ...] | None = None  # with the data that it was trained on
