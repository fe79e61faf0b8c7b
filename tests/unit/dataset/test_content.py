"""Training reads what was validated: whatever was changed between is found, and what was accepted goes along."""

import json
from pathlib import Path

import pytest

from lanline.config import parse_config
from lanline.dataset.content import content_ids, validated
from lanline.dataset.generate import generate_shard
from lanline.dataset.inventory import Inventory, build_inventory
from lanline.errors import UserError
from lanline.sidecars import DatasetSidecar

CONFIG = parse_config(
    {"name": "x", "models": ["ddm"], "data": {"shards": 2, "thetas_per_shard": 4, "rows_per_theta": 5}}
)


@pytest.fixture
def data(tmp_path):
    """Shards, their data set's sidecar, its inventory, and the path of a report that finds nothing."""
    paths = [tmp_path / f"shard-{number:05d}.safetensors" for number in range(2)]
    inventory = build_inventory([generate_shard(CONFIG, "ddm", number, path) for number, path in enumerate(paths)])
    values = dict.fromkeys(DatasetSidecar.model_fields) | {"schema_version": 1, "accepted_problems": ()}
    values |= {"model": "ddm", "folder": str(tmp_path), "files": 2, "rows": 40, "experiment_name": ""}
    dataset = DatasetSidecar(**values | {"dataset_id": inventory.dataset_id, "lineage_id": inventory.lineage_id})
    return paths, dataset, inventory, report(tmp_path / "validation.json", inventory.dataset_id)


def report(path: Path, dataset_id: str, problems=()) -> Path:
    path.write_text(json.dumps({"passed": not problems, "dataset_id": dataset_id, "problems": list(problems)}))
    return path


def test_validated_data_are_as_they_were(data):
    paths, dataset, inventory, path = data
    assert content_ids(paths) == (inventory.dataset_id, inventory.lineage_id)
    assert validated(dataset, paths[::-1], path) == dataset


def test_one_changed_byte_after_the_validation_is_found(data):
    paths, dataset, _, path = data
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(UserError, match="changed after they were validated"):
        validated(dataset, paths, path)


def test_accepted_problems_go_along(data):
    paths, dataset, _, path = data
    problem = {"file": "shard-00000.safetensors", "kind": "labels", "reason": "are odd"}
    report(path, dataset.dataset_id, [problem])
    assert validated(dataset, paths, path).accepted_problems == ("shard-00000.safetensors: labels: are odd",)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"passed": true, "dataset_id": "other", "problems": []}'])
def test_a_report_of_something_else_is_refused(data, text):
    paths, dataset, _, path = data
    path.write_text(text)
    with pytest.raises(UserError, match=r"validation\.json is "):
        validated(dataset, paths, path)


@pytest.mark.parametrize(
    "change",
    [{"sha256": "0" * 64}, {"rows": 7}, {"bytes": "many"}, {"seed": None}, {"file": 3}, {"sha256": None}],
)
def test_an_inventory_whose_id_is_not_that_of_its_files_is_refused(data, change):
    value = data[2].to_json()
    files = [{**value["files"][0], **change}, *value["files"][1:]]
    with pytest.raises(UserError, match=r"inventory\.json"):
        Inventory.from_json({**value, "files": files}, "inventory.json")
