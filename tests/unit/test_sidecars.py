"""Sidecars are checked when read, and written whole or not at all."""

import json
import os

import pytest

from lanline.errors import UserError
from lanline.files import atomic_path, sha256_json, write_json
from lanline.sidecars import Experiment, ExperimentsSidecar


def sidecar() -> ExperimentsSidecar:
    return ExperimentsSidecar(
        tracking_uri=None,
        data_generation=Experiment(name="ddm-data-generation", experiment_id=None),
        training=Experiment(name="ddm-training", experiment_id="7"),
    )


def test_what_is_written_is_read_again(tmp_path):
    sidecar().write(tmp_path / "experiments.json")
    assert ExperimentsSidecar.read(tmp_path / "experiments.json") == sidecar()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"training": 3}, "training"), ({"schema_version": 2}, "schema_version"), ({"surplus": 1}, "surplus")],
)
def test_a_wrong_field_is_named_with_the_file(tmp_path, change, named):
    path = tmp_path / "experiments.json"
    write_json(path, {**sidecar().model_dump(), **change})
    with pytest.raises(UserError, match=rf"experiments\.json .*{named}"):
        ExperimentsSidecar.read(path)


def test_a_missing_or_truncated_sidecar_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json"):
        ExperimentsSidecar.read(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text(sidecar().model_dump_json()[:40])
    with pytest.raises(UserError, match=r"cut\.json"):
        ExperimentsSidecar.read(tmp_path / "cut.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def write_until_the_disk_is_full():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_until_the_disk_is_full()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_of_json_ignores_the_order_of_keys():
    assert sha256_json({"a": 1, "b": [2.5]}) == sha256_json({"b": [2.5], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


def test_files_are_written_for_the_group_that_the_umask_allows(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "shard") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(old)
    assert (tmp_path / "shard").stat().st_mode & 0o777 == 0o640
