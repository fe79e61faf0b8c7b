"""Pickles of training data: what ssm-simulators writes is read, and nothing in a pickle ever runs."""

import collections
import copyreg
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lanline.dataset.foreign import Placeholder, as_shard, model_of, read_pickle
from lanline.dataset.shards import read_origin, read_shard
from lanline.errors import UserError

PARAMS = ("v", "a", "z", "t")


def content(rows: int = 6, **changes) -> dict:
    rng = np.random.default_rng(1)
    return {
        "lan_data": rng.normal(size=(rows, 6)).astype(np.float32),
        "lan_labels": rng.normal(size=rows).astype(np.float32),
        "model_config": {"name": "ddm", "params": list(PARAMS)},
        **changes,
    }


def write(path: Path, value, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


class Hostile:
    """Pickles to a program that makes a file when it is unpickled as usual."""

    def __init__(self, *steps):
        self.steps = steps

    def __reduce__(self):
        return self.steps


def the_bomb_works(path: Path, fuse: Path) -> bool:
    """Whether Python's own unpickler would have run it: else the test shows nothing."""
    subprocess.run(
        [sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"], capture_output=True
    )
    worked = fuse.exists()
    fuse.unlink(missing_ok=True)
    return worked


# --- what is read -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_through_in_every_protocol(tmp_path, protocol):
    value = {
        "c": np.arange(12, dtype=np.float64).reshape(3, 4),
        "f": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "big_endian": np.arange(3, dtype=">f8"),
        "view": np.arange(10)[::2],
        "empty": np.zeros((0, 6), np.float32),
        "scalar": np.float32(1.5),
        "plain": {"list": [1, 2.5, None, True, "x", b"\xff", (1, (2,))], "set": {1, 2}, "frozen": frozenset({3})},
        "ordered": collections.OrderedDict(a=1),
    }
    value["again"] = value["c"]
    read = read_pickle(write(tmp_path / "x.pickle", value, protocol))
    for name in ("c", "f", "big_endian", "view", "empty", "again"):
        np.testing.assert_array_equal(read[name], value[name])
        assert read[name].dtype == value[name].dtype
    assert read["scalar"] == np.float32(1.5)
    assert read["plain"] == value["plain"]
    assert read["ordered"] == {"a": 1}


def test_numpy_1s_names_are_read(tmp_path):
    path = write(tmp_path / "x.pickle", content())
    old = path.read_bytes().replace(b"\x8c\x15numpy._core.multiarray", b"\x8c\x14numpy.core.multiarray")
    start = old.index(b"\x95")  # without its frame, whose length no longer fits
    path.write_bytes(old[:start] + old[start + 9 :])
    np.testing.assert_array_equal(read_pickle(path)["lan_data"], content()["lan_data"])


@pytest.fixture(scope="module")
def ssms_pickle(tmp_path_factory) -> Path:
    """One file as the installed ssm-simulators writes it."""
    folder = tmp_path_factory.mktemp("ssms")
    (folder / "small.yaml").write_text(
        "MODEL: ddm\nGENERATOR_APPROACH: lan\nPIPELINE: {N_PARAMETER_SETS: 4, N_SUBRUNS: 1}\n"
        "SIMULATOR: {N_SAMPLES: 300, DELTA_T: 0.001}\nTRAINING: {N_SAMPLES_PER_PARAM: 50}\nESTIMATOR: {TYPE: kde}\n"
    )
    command = [sys.executable, "-m", "ssms.cli.generate", "--config-path", "small.yaml", "--output", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return next(folder.rglob("*.pickle"))


@pytest.mark.slow
def test_a_file_of_ssm_simulators_is_read_without_its_functions(ssms_pickle, tmp_path):
    with ssms_pickle.open("rb") as handle:
        expected = pickle.load(handle)  # noqa: S301  made by the fixture
    read = read_pickle(ssms_pickle)
    arrays = [name for name, value in expected.items() if isinstance(value, np.ndarray)]
    assert {"lan_data", "lan_labels", "cpn_data"} <= set(arrays)
    for name in arrays:
        np.testing.assert_array_equal(read[name], expected[name])
    assert read["generator_config"] == expected["generator_config"]
    assert isinstance(read["model_config"]["boundary"], Placeholder)
    assert model_of(ssms_pickle) == "ddm"
    shard = as_shard(ssms_pickle, tmp_path, "lan", PARAMS)
    rows = read_shard(shard, ["lan_data", "lan_labels"])
    np.testing.assert_array_equal(rows["lan_data"], expected["lan_data"])
    np.testing.assert_array_equal(rows["lan_labels"], expected["lan_labels"])


def test_functions_by_value_are_not_made(tmp_path):
    """What ssm-simulators 0.13 and later can hold: closures and transform objects, pickled by cloudpickle."""
    cloudpickle = pytest.importorskip("cloudpickle")
    offset = 3
    config = {"name": "ddm", "params": list(PARAMS), "boundary": lambda t: t + offset, "other": Transform(["v"])}
    path = tmp_path / "x.pickle"
    path.write_bytes(cloudpickle.dumps(content(model_config=config)))
    read = read_pickle(path)
    assert isinstance(read["model_config"]["boundary"], Placeholder)
    assert isinstance(read["model_config"]["other"], Placeholder)
    np.testing.assert_array_equal(read["lan_data"], content()["lan_data"])


class Transform:
    def __init__(self, names):
        self.names = names


# --- shards from pickles ----------------------------------------------------------------------------------------------
def test_a_pickle_becomes_a_shard_once(tmp_path):
    source = write(tmp_path / "x.pickle", content(lan_labels=np.ones((6, 1))))
    shard = as_shard(source, tmp_path / "shards", "lan", PARAMS)
    rows = read_shard(shard, ["lan_data", "lan_labels"])
    assert rows["lan_data"].dtype == rows["lan_labels"].dtype == np.float32
    assert rows["lan_labels"].shape == (6,)
    assert read_origin(shard)["from"] == "x.pickle"
    made = shard.stat().st_mtime_ns
    assert as_shard(source, tmp_path / "shards", "lan", PARAMS).stat().st_mtime_ns == made
    write(source, content(rows=8))
    assert len(read_shard(as_shard(source, tmp_path / "shards", "lan", PARAMS), ["lan_labels"])["lan_labels"]) == 8


@pytest.mark.parametrize("choices", [1, 3])
def test_probabilities_of_a_pickle_become_a_shard(tmp_path, choices):
    """As ssm-simulators has them: (n, 1) for two choices, (n, C) for more."""
    labels = np.full((6, choices), 0.25)
    source = write(tmp_path / "x.pickle", content(cpn_data=np.ones((6, 4)), cpn_labels=labels))
    rows = read_shard(as_shard(source, tmp_path / "shards", "cpn", PARAMS), ["cpn_data", "cpn_labels"])
    assert rows["cpn_data"].shape == (6, 4)
    assert rows["cpn_labels"].shape == ((6,) if choices == 1 else (6, 3))


def test_choices_are_predicted_given_a_response(tmp_path):
    """ssm-simulators keeps them as cpn_no_omission; its cpn_labels count trials without one too."""
    data, counted, given = np.ones((4, 5)), np.full((4, 1), 0.6), np.full((4, 1), 0.8)
    model_config = {"name": "ddm_deadline", "params": [*PARAMS, "deadline"]}
    both = {"cpn_data": data, "cpn_labels": counted, "cpn_no_omission_data": data, "cpn_no_omission_labels": given}
    source = write(tmp_path / "x.pickle", content(**both, model_config=model_config))
    rows = read_shard(as_shard(source, tmp_path / "shards", "cpn", (*PARAMS, "deadline")), ["cpn_labels"])
    np.testing.assert_allclose(rows["cpn_labels"], 0.8)
    source = write(tmp_path / "y.pickle", content(cpn_data=data, cpn_labels=counted, model_config=model_config))
    with pytest.raises(UserError, match=r"y\.pickle has no array cpn_no_omission_data"):
        as_shard(source, tmp_path / "shards", "cpn", (*PARAMS, "deadline"))
    several = content(cpn_data=np.ones((4, 4)), cpn_labels=np.tile([0.2, 0.2, 0.4], (4, 1)))
    rows = read_shard(as_shard(write(tmp_path / "z.pickle", several), tmp_path / "s", "cpn", PARAMS), ["cpn_labels"])
    np.testing.assert_allclose(rows["cpn_labels"], [[0.25, 0.25, 0.5]] * 4)


@pytest.mark.parametrize("labels", [np.full((6, 1), 1.5), np.full((6, 3), -0.1), np.zeros((6, 3))])
def test_labels_that_are_no_probabilities_are_named(tmp_path, labels):
    source = write(tmp_path / "x.pickle", content(cpn_data=np.ones((6, 4)), cpn_labels=labels))
    with pytest.raises(UserError, match=r"x\.pickle: 6 rows of cpn_labels are not probabilities"):
        as_shard(source, tmp_path / "shards", "cpn", PARAMS)


def test_a_shard_is_used_as_it_is(tmp_path):
    assert as_shard(tmp_path / "a.safetensors", tmp_path, "lan", PARAMS) == tmp_path / "a.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lan_data": None}, "has no array lan_data; it has lan_labels"),
        ({"lan_data": np.array([[object()]])}, "has no array lan_data"),
        ({"lan_labels": np.ones(5)}, "have shapes"),
        ({"lan_labels": np.full(6, np.nan)}, "6 values of lan_labels are NaN or infinite"),
        ({"lan_labels": np.r_[-np.inf, np.ones(5)]}, "set LABELS_LOWER_BOUND"),
        ({"lan_data": np.ones((0, 6)), "lan_labels": np.ones(0)}, "has no rows"),
        *(
            (
                {"model_config": {"name": "ddm", "params": kind(["a", "v", "z", "t"])}},
                "has the parameters a, v, z, t; expected v, a",
            )
            for kind in (list, tuple, np.array)
        ),
    ],
)
def test_a_pickle_that_cannot_be_trained_on_is_named(tmp_path, changes, message):
    source = write(tmp_path / "x.pickle", content(**changes))
    with pytest.raises(UserError, match=r"x\.pickle") as caught:
        as_shard(source, tmp_path / "shards", "lan", PARAMS)
    assert message in str(caught.value)
    assert not (tmp_path / "shards").exists()


def test_labels_without_density_are_raised_to_the_floor(tmp_path):
    """As LANfactory raises them to LABELS_LOWER_BOUND."""
    source = write(tmp_path / "x.pickle", content(lan_labels=np.r_[-np.inf, np.zeros(5)]))
    raised = as_shard(source, tmp_path / "shards", "lan", PARAMS, -16.0)
    np.testing.assert_array_equal(read_shard(raised, ["lan_labels"])["lan_labels"], [-16, 0, 0, 0, 0, 0])
    lower = as_shard(source, tmp_path / "shards", "lan", PARAMS, -20.0)
    assert read_shard(lower, ["lan_labels"])["lan_labels"][0] == -20


def test_files_that_have_no_network_types_yet_are_of_a_lan(tmp_path):
    old = {"data": np.ones((3, 6)), "labels": np.zeros(3), "model_config": {"name": "ddm", "params": list(PARAMS)}}
    shard = as_shard(write(tmp_path / "x.pickle", old), tmp_path / "shards", "lan", PARAMS)
    np.testing.assert_array_equal(read_shard(shard, ["lan_data"])["lan_data"], np.ones((3, 6)))


# --- files that ask for too much --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8e" + (6 * 10**9).to_bytes(8, "little") + b".",  # bytes of 6 GB
        b"\x80\x05\x96" + (6 * 10**9).to_bytes(8, "little") + b".",  # a bytearray
        b"\x80\x04\x95" + (6 * 10**9).to_bytes(8, "little") + b".",  # a frame
        b"\x80\x02B\xff\xff\xff\x7f.",
    ],
)
def test_no_memory_is_taken_for_what_is_not_there(tmp_path, program):
    path = tmp_path / "x.pickle"
    path.write_bytes(program)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="ends too early"):
            read_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_nested_keys_that_would_take_for_ever_to_hash_are_refused(tmp_path):
    nested = b"(I1\ntp0\n" + b"".join(b"0g%d\ng%d\n\x86p%d\n" % (i, i, i + 1) for i in range(90))
    for end in (b"}g90\nI1\ns.", b"(g90\nI1\nd.", b"\x8f(g90\n\x90.", b"(g90\n\x91."):
        path = tmp_path / "x.pickle"
        path.write_bytes(b"\x80\x04" + nested + end)
        with pytest.raises(UserError, match="as a key"):
            read_pickle(path)


def test_many_arrays_and_a_large_memo_take_no_quadratic_time(tmp_path):
    """With a look at the whole memo for each array this takes minutes."""
    many = [np.float64(i) for i in range(30_000)] + [str(i) for i in range(100_000)]
    path = write(tmp_path / "x.pickle", {"many": many, "arrays": [np.ones(1) * i for i in range(10_000)]}, 2)
    assert read_pickle(path)["arrays"][7] == 7


def test_deep_nesting_is_read_or_refused(tmp_path):
    path = tmp_path / "x.pickle"
    path.write_bytes(b"}(S'a'\n" + b"]" * 100_000 + b"a" * 99_999 + b"u.")
    assert isinstance(read_pickle(path)["a"], list)


@pytest.mark.parametrize("length", [0, 1, 20, 200])
def test_a_truncated_file_is_named_with_a_reason(tmp_path, length):
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(content())[:length])
    with pytest.raises(UserError, match=r"x\.pickle cannot be read as a pickle of arrays: it ends too early"):
        read_pickle(path)


# --- hostile files ----------------------------------------------------------------------------------------------------
def hostile_steps(fuse: str) -> dict[str, Hostile]:
    touch = f"open({fuse!r}, 'w').close()"
    return {
        "system": Hostile(os.system, (f"touch {fuse}",)),
        "exec": Hostile(exec, (touch,)),
        "popen": Hostile(subprocess.Popen, (["touch", fuse],)),
        "open": Hostile(open, (fuse, "w")),
        "partial": Hostile(map, (exec, [touch])),  # lazy: harmless unless someone walks through it
        "through getattr": Hostile(getattr, (Hostile(__import__, ("pathlib",)), "Path")),
        "state setter": Hostile(collections.OrderedDict, (), touch, None, None, os.system),
    }


@pytest.mark.parametrize("name", list(hostile_steps("")))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_in_a_pickle_never_run(tmp_path, name, protocol):
    fuse = tmp_path / "fuse"
    path = write(tmp_path / "x.pickle", content(bomb=hostile_steps(str(fuse))[name]), protocol)
    if name in ("system", "exec", "open", "popen") and protocol == 4:
        assert the_bomb_works(path, fuse)
    try:
        read = read_pickle(path)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017  refusing and skipping are both right
    else:
        assert isinstance(read["bomb"], Placeholder) or read["bomb"] == {}
    assert not fuse.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n"  # an array whose state follows
OPCODES = {
    "INST": b"(S'touch {fuse}'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch {fuse}'\no.",
    "GLOBAL and REDUCE": b"cos\nsystem\n(S'touch {fuse}'\ntR.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(]S'touch'\naS'{fuse}'\naet\x81.",
    "BUILD of a foreign object": b"cos\nsystem\n)R}S'__class__'\nS'x'\nsb.",
    "BUILD of a dict": b"}}S'a'\nI1\nsb.",
    "BUILD of an array with a foreign dtype": ARRAY + b"(I1\ntcos\nsystem\nI00\nS'abc'\ntb.",
    "a dtype that is code": b"cnumpy\ndtype\n(S'touch {fuse}'\ntR(I3\nS'<'\ntb.",
    "PERSID": b"Ptouch {fuse}\n.",
    "BINPERSID": b"\x80\x02S'x'\nQ.",
    "EXT1": b"\x80\x02\x82\xf0.",
    "REDUCE of a text": b"S'os.system'\n(tR.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "half a file": pickle.dumps(content())[:200],
    "an empty file": b"",
    "no pickle": b"hello, this is not a pickle",
    "a list": b"].",
    "a huge length": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a shape that does not fit": ARRAY + b"(I99999999\ntcnumpy\ndtype\n(S'f8'\ntR(I3\nS'<'\ntbI00\nS'abc'\ntb.",
}


@pytest.mark.parametrize("name", list(OPCODES))
def test_every_opcode_that_could_run_something_is_refused_with_the_files_name(tmp_path, name):
    fuse = tmp_path / "fuse"
    path = tmp_path / "x.pickle"
    path.write_bytes(OPCODES[name].replace(b"{fuse}", str(fuse).encode()))
    with pytest.raises(UserError, match=r"x\.pickle") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)
    assert not fuse.exists()


def test_a_registered_extension_code_is_not_followed(tmp_path):
    copyreg.add_extension("subprocess", "Popen", 240)
    try:
        path = tmp_path / "x.pickle"
        path.write_bytes(b"\x80\x02\x82\xf0.")
        with pytest.raises(UserError, match="extension code 240"):
            read_pickle(path)
    finally:
        copyreg.remove_extension("subprocess", "Popen", 240)


def test_no_module_is_imported_for_a_pickle(tmp_path):
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')")
    path = tmp_path / "x.pickle"
    path.write_bytes(b"}S'f'\ncloud\nfunction\ns.")
    code = f"from lanline.dataset.foreign import read_pickle; print(read_pickle({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "not loaded: loud.function" in done.stdout
