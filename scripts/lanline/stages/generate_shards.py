"""Stage generate_shards: shards of training data with their records, some in one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lanline.config import Config
from lanline.dataset.generate import is_whole, making_versions, write_shards
from lanline.dataset.inventory import lineage_id
from lanline.errors import UserError
from lanline.files import sha256_json
from lanline.paths import Paths, record_file, shard_file, shard_label
from lanline.sidecars import ShardSidecar


@dataclass(frozen=True)
class ShardsRequest:
    """Which shards are made.

    Attributes:
        config: the run's configuration.
        model: name of the model.
        shards: numbers of the shards.
        paths: where they go.
        cores: shards that are made at once.
        code: fingerprint of the code that makes them: they are made in a folder of unfinished work, because Snakemake
            removes the outputs of a failed job, and unfinished work of other code is not used. None to make them in
            their places.
    """

    config: Config
    model: str
    shards: Sequence[int]
    paths: Paths
    cores: int
    code: str | None = None

    @property
    def folder(self) -> Path:
        """Where the shards are made."""
        if self.code is None:
            return self.paths.data_folder(self.model)
        made_by = sha256_json([self.config.data_recipe(self.model), self.code, making_versions()])[:16]
        return self.paths.unfinished(self.model) / made_by


def generate_shards(request: ShardsRequest) -> None:
    """Make those shards that do not exist yet, and their records; a job that was killed left some of them.

    Raises:
        UserError: the folder holds shards of another recipe.
    """
    folder = request.folder
    write_shards(request.config, request.model, folder, missing_shards(request), request.cores)
    if request.code is None:
        return
    paths, model = request.paths, request.model
    for shard in request.shards:
        label = shard_label(shard)
        paths.data_folder(model).mkdir(parents=True, exist_ok=True)
        (folder / shard_file(shard)).replace(paths.shard(model, label))
        (folder / record_file(shard)).replace(paths.shard_record(model, label))


def missing_shards(request: ShardsRequest) -> list[int]:
    """Numbers of the shards that are still to be made. Raises as `generate_shards` does."""
    folder, recipe = request.folder, lineage_id(request.config.data_recipe(request.model))
    for record in (folder / record_file(shard) for shard in request.shards):
        if record.exists() and ShardSidecar.read(record).lineage_id != recipe:
            raise UserError(f"{folder} holds data made with other settings or another seed: choose another --output")
    return [shard for shard in request.shards if not is_whole(folder, shard)]
