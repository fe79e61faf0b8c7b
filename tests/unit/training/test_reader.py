"""Exact epochs: every row once, whatever the files and the batch size, in memory and streamed."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from lanline.config import Network
from lanline.dataset.shards import write_shard
from lanline.errors import UserError
from lanline.models import get_model
from lanline.networks.specification import Standardisation, make_spec
from lanline.training.reader import PIECE_ROWS, Reader, pieces_of, read_piece

SPEC = make_spec(Network(name="lan", features="raw"), get_model("ddm"))
PLAIN = Standardisation(np.zeros(6), np.ones(6))
ROWS_OF_FILES = [25_013, 7, 12_500]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of unequal length."""
    return write_files(tmp_path_factory.mktemp("shards"), ROWS_OF_FILES)


def write_files(folder, rows_of_files):
    """Files whose labels number the rows."""
    start, paths = 0, []
    for i, n in enumerate(rows_of_files):
        labels = np.arange(start, start + n, dtype=np.float32)
        data = np.stack([labels + column for column in range(6)], axis=1)
        paths.append(folder / f"shard-{i}.safetensors")
        write_shard(paths[-1], {"lan_data": data, "lan_labels": labels}, {})
        start += n
    return paths


def reader(files, batch_size=1000, buffer_rows=10**6, seed=1, block_batches=4):
    return Reader(pieces_of(files, SPEC), SPEC, PLAIN, batch_size, block_batches, buffer_rows, seed)


def rows_of(blocks):
    """The rows of each block, (k, b, D + L)."""
    return [rows[index] for rows, index in blocks]


def labels(blocks):
    return np.concatenate([rows[..., -1].ravel() for rows in rows_of(blocks)])


@pytest.mark.parametrize("buffer_rows", [10**6, 2 * PIECE_ROWS])
@pytest.mark.parametrize("batch_size", [1, 997, 1000, 40_000])
def test_every_row_once_an_epoch_and_only_the_last_batch_is_smaller(files, buffer_rows, batch_size):
    source = reader(files, batch_size, buffer_rows)
    blocks = rows_of(source.blocks(0, 0))
    assert source.streams == (buffer_rows < source.n_rows)
    np.testing.assert_array_equal(np.sort(labels(source.blocks(0, 0))), np.arange(sum(ROWS_OF_FILES)))
    sizes = [block.shape[1] for block in blocks for _ in range(len(block))]
    assert len(sizes) == source.n_batches
    assert set(sizes[:-1]) <= {batch_size}
    for block in blocks:  # inputs stay with their label
        np.testing.assert_array_equal(block[..., 5], block[..., -1] + 5)


@pytest.mark.parametrize("buffer_rows", [10**6, 2 * PIECE_ROWS])
def test_the_order_follows_the_seed_and_the_epoch(files, buffer_rows):
    first = labels(reader(files, buffer_rows=buffer_rows).blocks(0, 0))
    np.testing.assert_array_equal(first, labels(reader(files, buffer_rows=buffer_rows).blocks(0, 0)))
    for seed, epoch in ((2, 0), (1, 1)):
        other = labels(reader(files, buffer_rows=buffer_rows, seed=seed).blocks(epoch, 0))
        assert (other == first).mean() < 0.01


@pytest.mark.parametrize("buffer_rows", [10**6, 2 * PIECE_ROWS])
@pytest.mark.parametrize("first_batch", [4, 20, 36])
def test_an_epoch_can_go_on_in_the_middle(files, buffer_rows, first_batch):
    source = reader(files, buffer_rows=buffer_rows)
    whole = labels(source.blocks(3, 0))
    np.testing.assert_array_equal(labels(source.blocks(3, first_batch)), whole[first_batch * 1000 :])


def test_streamed_windows_have_one_shape_so_that_a_device_compiles_once(files):
    assert len({rows.shape for rows, _ in reader(files, buffer_rows=2 * PIECE_ROWS).blocks(0, 0)}) == 1


def test_streamed_rows_are_mixed_over_the_files(tmp_path):
    """A window holds four pieces, and each of its batches rows of all of them, in no order."""
    rows_of_file = 4 * PIECE_ROWS
    source = reader(write_files(tmp_path, [rows_of_file] * 3), buffer_rows=8 * PIECE_ROWS)
    assert source.streams
    batches = labels(source.blocks(0, 0)).reshape(-1, 1000)
    for batch in batches:
        assert len(np.unique(batch // PIECE_ROWS)) == 4
        assert len(np.unique(batch // rows_of_file)) > 1
        assert abs(np.corrcoef(batch[1:], batch[:-1])[0, 1]) < 0.2


def test_inputs_are_standardised_and_labels_are_not(files):
    pieces = pieces_of(files, SPEC)
    rows = np.concatenate([read_piece(piece, SPEC) for piece in pieces])
    source = Reader(pieces, SPEC, Standardisation.of(rows[:, :-1]), 1000, 4, 10**6, 1)
    seen = np.concatenate([rows.reshape(-1, 7) for rows in rows_of(source.blocks(0, 0))])
    np.testing.assert_allclose(seen[:, :-1].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(seen[:, :-1].std(axis=0), 1, rtol=1e-3)
    assert seen[:, -1].max() == sum(ROWS_OF_FILES) - 1


def test_files_that_do_not_fit_the_network_are_refused_by_name(tmp_path, files):
    path = tmp_path / "narrow.safetensors"
    arrays = {"lan_data": np.zeros((5, 4), np.float32), "lan_labels": np.zeros(5, np.float32)}
    write_shard(path, arrays, {})
    with pytest.raises(UserError, match=r"narrow\.safetensors.*\(5, 4\).*\(n, 6\)"):
        reader([*files, path])
    save_file({"lan_data": np.zeros((5, 6)), "lan_labels": np.zeros(5)}, tmp_path / "double.safetensors")
    with pytest.raises(UserError, match=r"double\.safetensors.* hold F64; expected F32"):
        reader([tmp_path / "double.safetensors"])
    with pytest.raises(UserError, match=r"absent\.safetensors"):
        reader([tmp_path / "absent.safetensors"])
