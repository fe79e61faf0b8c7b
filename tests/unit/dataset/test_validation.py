"""Every kind of damaged data is found and named; undamaged data pass."""

import os
from importlib.metadata import version

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from lanline.config import parse_config
from lanline.dataset.generate import generate_shard
from lanline.dataset.inventory import Inventory, build_inventory
from lanline.dataset.validation import validate_dataset
from lanline.errors import UserError
from lanline.paths import shard_label

CONFIG = parse_config(
    {"name": "test", "models": ["ddm"], "data": {"shards": 2, "thetas_per_shard": 40, "rows_per_theta": 20}}
)


@pytest.fixture
def data(tmp_path):
    records = [
        generate_shard(CONFIG, "ddm", shard, tmp_path / f"shard-{shard_label(shard)}.safetensors") for shard in range(2)
    ]
    return tmp_path, build_inventory(records)


def problems(folder, inventory) -> dict[str, set[str]]:
    report = validate_dataset(folder, inventory, "test", CONFIG)
    kinds: dict[str, set[str]] = {}
    for problem in report.problems:
        kinds.setdefault(problem.file, set()).add(problem.kind)
    assert report.to_json()["passed"] == (not kinds)
    return kinds


def rewrite(folder, inventory, change) -> Inventory:
    """Change the arrays of the first shard and track the change: only its content can give it away."""
    path = folder / inventory.files[0].file
    with safe_open(path, "numpy") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    change(arrays)
    save_file(arrays, path, metadata)
    return retrack(folder, inventory)


def retrack(folder, inventory) -> Inventory:
    from dataclasses import replace

    from lanline.files import sha256_file

    path = folder / inventory.files[0].file
    first = replace(inventory.files[0], bytes=path.stat().st_size, sha256=sha256_file(path))
    return replace(inventory, files=(first, *inventory.files[1:]))


def test_undamaged_data_pass(data):
    assert problems(*data) == {}


@pytest.mark.parametrize("model", ["levy", "full_ddm_rv"])  # these draw from ssm-simulators' random state, and numpy's
def test_simulated_data_pass_on_several_cores(tmp_path, model):
    simulated = {"engine": "simulation", "target": "euler", "delta_t": 0.01, "n_trajectories": 200, "max_t": 5.0}
    size = {"shards": 4, "thetas_per_shard": 16, "rows_per_theta": 10}
    config = parse_config({"name": "test", "models": [model], "data": {**simulated, **size}})
    records = [
        generate_shard(config, model, shard, tmp_path / f"shard-{shard_label(shard)}.safetensors") for shard in range(4)
    ]
    assert validate_dataset(tmp_path, build_inventory(records), "test", config, threads=2).problems == ()


def test_missing_and_extra_files(data):
    folder, inventory = data
    (folder / inventory.files[1].file).rename(folder / "other.safetensors")
    assert problems(folder, inventory) == {
        inventory.files[1].file: {"missing"},
        "other.safetensors": {"extra"},
    }


def test_one_flipped_bit(data):
    folder, inventory = data
    path = folder / inventory.files[0].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "changed" in problems(folder, inventory)[path.name]


def test_a_truncated_file(data):
    folder, inventory = data
    path = folder / inventory.files[0].file
    os.truncate(path, path.stat().st_size - 100)
    assert problems(folder, inventory) == {path.name: {"truncated", "unreadable"}}


def test_a_file_that_is_no_shard(data):
    folder, inventory = data
    path = folder / inventory.files[0].file
    path.write_bytes(b"\x80\x04]q." * 100)
    assert "unreadable" in problems(folder, inventory)[path.name]


def set_value(name, index, value):
    def change(arrays):
        arrays[name][index] = value

    return change


def narrower(arrays):
    arrays["lan_data"] = arrays["lan_data"][:, 1:].copy()


def doubles(arrays):
    arrays["lan_labels"] = arrays["lan_labels"].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (set_value("lan_data", (3, 1), np.nan), "not finite"),
        (set_value("lan_labels", 5, -np.inf), "not finite"),
        (set_value("lan_data", (7, 0), 3.5), "bounds"),
        (set_value("lan_data", (7, -1), 0.0), "choice"),
        (set_value("lan_labels", slice(None), 0.0), "labels"),
        (set_value("lan_data", (2, -2), 1.234), "rows"),
        (set_value("cpn_labels", 4, np.nan), "not finite"),
        (set_value("cpn_labels", 4, -0.1), "probability"),
        (set_value("gonogo_labels", slice(None), 0.5), "labels"),
        (set_value("cpn_data", (7, 0), 3.5), "bounds"),
        (lambda arrays: arrays.pop("gonogo_labels"), "shape"),
        (narrower, "shape"),
        (doubles, "dtype"),
    ],
)
def test_wrong_content_that_is_tracked_as_it_is(data, change, kind):
    folder, inventory = data
    damaged = rewrite(folder, inventory, change)
    assert kind in problems(folder, damaged)[inventory.files[0].file]


def test_shards_of_two_recipes_make_no_data_set(tmp_path):
    other = parse_config({**CONFIG.model_dump(exclude={"models"}), "models": ["ddm"], "seed": 1})
    records = [
        generate_shard(config, "ddm", shard, tmp_path / f"{shard}.safetensors")
        for shard, config in enumerate([CONFIG, other])
    ]
    with pytest.raises(UserError, match="lineage_id"):
        build_inventory(records)


def test_an_inventory_survives_json_and_cannot_lead_out_of_the_folder(data):
    _, inventory = data
    value = inventory.to_json()
    assert Inventory.from_json(value, "inventory.json") == inventory
    files = [dict(entry) for entry in value["files"]]
    files[0]["file"] = "../shard-00000.safetensors"
    with pytest.raises(UserError, match=r"inventory\.json.*points outside"):
        Inventory.from_json({**value, "files": files}, "inventory.json")


# --- libraries of other versions ----------------------------------------------------------------------------------
def made_with(folder, inventory, **versions):
    """Write the record of the first shard as if these versions had made it."""
    path = folder / inventory.files[0].file
    record = generate_shard(CONFIG, "ddm", 0, folder.parent / "again.safetensors")
    record.model_copy(update={"versions": {**record.versions, **versions}}).write(path.with_suffix(".json"))


def test_other_versions_that_make_the_same_labels_are_a_note(data):
    folder, inventory = data
    made_with(folder, inventory, numba="0.0.1")
    report = validate_dataset(folder, inventory, "test", CONFIG)
    assert report.problems == ()
    [note] = report.notes
    assert note.startswith(f"1 shard(s) made with numba 0.0.1 (now {version('numba')}): ")
    assert report.to_json()["passed"]


def test_other_versions_are_named_with_labels_that_differ(data):
    folder, inventory = data
    made_with(folder, inventory, numba="0.0.1", scipy="0.0.2")

    def change(arrays):
        arrays["lan_labels"][:] = 0.5

    changed = rewrite(folder, inventory, change)
    report = validate_dataset(folder, changed, "test", CONFIG)
    computed = [problem.reason for problem in report.problems if problem.kind == "labels"]
    made = f"made with scipy 0.0.2 (now {version('scipy')}), numba 0.0.1 (now {version('numba')})"
    assert computed
    assert all(reason.endswith(made) for reason in computed)
    assert report.notes == ()


def test_the_same_versions_need_no_note(data):
    folder, inventory = data
    made_with(folder, inventory)
    assert validate_dataset(folder, inventory, "test", CONFIG).notes == ()
