"""Shards: the same bytes for the same content, and clear errors for files that are none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lanline.dataset.reading import read_rows
from lanline.dataset.shards import read_origin, read_shard, stream_shard, write_shard
from lanline.errors import UserError

ARRAYS = {
    "lan_data": np.arange(12, dtype=np.float32).reshape(2, 6),
    "lan_labels": np.array([-1, -66], np.float32),
}
ORIGIN = {"model": "ddm", "seed": 3, "bounds": {"v": [-3.0, 3.0]}}


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "shard-00000.safetensors"
    write_shard(path, ARRAYS, ORIGIN)
    assert read_origin(path) == ORIGIN
    for name, array in read_shard(path, list(ARRAYS)).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_the_bytes_are_the_same_in_every_process(tmp_path):
    # Hash tables of other processes have other orders: nothing of that may reach the file.
    code = (
        "import sys, numpy as np; from pathlib import Path; from lanline.dataset.shards import write_shard; "
        "write_shard(Path(sys.argv[1]), {'lan_data': np.zeros((2, 6), np.float32), 'lan_labels': "
        "np.zeros(2, np.float32)}, {'model': 'ddm', 'seed': 3, 'bounds': {'v': [-3.0, 3.0]}})"
    )
    for index in range(6):
        subprocess.run([sys.executable, "-c", code, tmp_path / f"{index}.safetensors"], check=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_blocks_make_the_same_file_as_whole_arrays(tmp_path):
    whole, streamed = tmp_path / "whole.safetensors", tmp_path / "streamed.safetensors"
    rng = np.random.default_rng(1)
    arrays = {"lan_data": rng.normal(size=(10, 6)), "lan_labels": rng.normal(size=10), "cpn_data": np.ones((5, 4))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    parts = {name: np.split(array, 5) for name, array in arrays.items()}
    write_shard(whole, arrays, ORIGIN)
    stream_shard(streamed, shapes, ({name: parts[name][i] for name in parts} for i in range(5)), ORIGIN)
    assert streamed.read_bytes() == whole.read_bytes()
    for name, array in load_file(streamed).items():  # as the library reads it
        np.testing.assert_array_equal(array, arrays[name])


def test_blocks_that_do_not_fill_the_arrays_leave_no_file(tmp_path):
    path = tmp_path / "shard.safetensors"
    shapes = {name: array.shape for name, array in ARRAYS.items()}
    for blocks in ([], [ARRAYS, ARRAYS], [{"lan_data": ARRAYS["lan_data"]}]):
        with pytest.raises(ValueError, match="the blocks end at"):
            stream_shard(path, shapes, blocks, ORIGIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (5, 17), (99, 100), (40, 40)])
def test_rows_in_the_middle_of_a_file_are_those_that_the_library_reads(tmp_path, start, stop):
    rng = np.random.default_rng(1)
    shapes = {"lan_data": (100, 6), "lan_labels": (100,), "cpn_labels": (100, 3)}
    save_file({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, tmp_path / "x")
    whole = load_file(tmp_path / "x")
    for name, rows in zip(shapes, read_rows(tmp_path / "x", list(shapes), start, stop), strict=True):
        np.testing.assert_array_equal(rows, whole[name][start:stop])
        assert rows.dtype == np.float32


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux says how much a process has read")
def test_pieces_of_a_file_cost_no_more_than_their_size(tmp_path):
    """Where the system reads ahead, pieces in random order can cost many times as much."""

    def bytes_read():
        return int(re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.M)[1])

    path, piece, n_pieces = tmp_path / "x.safetensors", 10_000, 40
    save_file({"lan_data": np.zeros((n_pieces * piece, 6), np.float32)}, path)
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = bytes_read()
    for number in range(1, n_pieces, 4):
        read_rows(path, ["lan_data"], number * piece, (number + 1) * piece)
    size, read = (n_pieces // 4) * piece * 6 * 4, bytes_read() - before
    if read < size:
        pytest.skip("this file system keeps its files in memory")
    assert read < 1.5 * size


def test_rows_of_a_file_that_was_cut_are_refused_by_name(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"lan_data": np.zeros((100, 6), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"x\.safetensors cannot be read as a shard"):
        read_rows(path, ["lan_data"], 90, 100)


def test_a_missing_array_is_named(tmp_path):
    path = tmp_path / "shard.safetensors"
    write_shard(path, ARRAYS, ORIGIN)
    with pytest.raises(UserError, match=r"shard\.safetensors has no array cpn_data; it has lan_data, lan_labels"):
        read_shard(path, ["cpn_data"])


def test_files_that_are_no_shards_are_named(tmp_path):
    foreign, text = tmp_path / "foreign.safetensors", tmp_path / "text.safetensors"
    save_file(ARRAYS, foreign)
    text.write_text("not a shard")
    with pytest.raises(UserError, match=r"foreign\.safetensors was not written by lanline"):
        read_origin(foreign)
    for path in (text, tmp_path / "absent.safetensors"):
        with pytest.raises(UserError, match=path.name):
            read_origin(path)
