"""Broken files and values end in exit code 1 or 2 with one message: no traceback, nothing written (hypothesis)."""

import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lanline.commands.generate import main as generate
from lanline.commands.main import main as lanline
from lanline.commands.train import jaxtrain, torchtrain
from lanline.config import parse_config
from lanline.dataset.foreign import read_pickle
from lanline.dataset.generate import generate_shard
from lanline.errors import UserError

OWN = """
name: x
seed: 3
models: [{name: ddm, bounds: {v: [-2, 2]}}]
data: {shards: 2, thetas_per_shard: 4, rows_per_theta: 10, max_t: 20.0, mixture: {density: 0.8, uniform: 0.1}}
networks: [{name: lan, hidden_layers: [4], activations: [tanh], training: {keep: best}}]
training: {epochs: 1, batch_size: 10, seeds: [1], frameworks: [torch], label_floor: -16.0}
tracking: {uri: sqlite:///x.db, on_outage: spool}
evaluation: {gate: {mass: [0.9, 1.1]}}
"""
LANFACTORY = """
NETWORK_TYPE: lan
MODEL: ddm
LAYER_SIZES: [[4, 1]]
ACTIVATIONS: [[tanh]]
N_EPOCHS: 1
LEARNING_RATE: 0.001
LR_SCHEDULER: reduce_on_plateau
LR_SCHEDULER_PARAMS: {factor: 0.1, patience: 2}
N_TRAINING_FILES: 100
LABELS_LOWER_BOUND: np.log(1e-7)
"""
SSMS = """
MODEL: ddm
GENERATOR_APPROACH: lan
PIPELINE: {N_PARAMETER_SETS: 2, N_SUBRUNS: 1}
SIMULATOR: {N_SAMPLES: 100, DELTA_T: 0.001}
TRAINING: {N_SAMPLES_PER_PARAM: 10}
"""
ODD_NUMBERS = [float("inf"), float("nan"), -1, 0, -0.0, 1e300, 10**30]
ODD_TEXTS = ["", "x" * 700, "\x00", "a\nb", "../..", "np.log(0)", "1e-3", "nan", "~", "${HOME}", "http://user:secret@"]
ODD_PARTS = [None, True, [], {}, [[]], {"a": {"b": 1}}, ["x", "x"]]
ODD = st.sampled_from([*ODD_NUMBERS, *ODD_TEXTS, *ODD_PARTS])
LIMITS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def run(application, *arguments) -> Result:
    """A command in this process; a failure must be a message, and only where it says so."""
    before = sorted(Path().rglob("*"))
    done = CliRunner().invoke(application, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 1, 2), done.output
    assert "Traceback" not in done.output
    if done.exit_code:
        assert done.output.lower().count("error:") == 1 or "Usage:" in done.output, done.output
        assert "secret" not in done.output
    assert sorted(Path().rglob("*")) == before
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two shards, and the same rows in two pickles."""
    folder = tmp_path_factory.mktemp("made")
    config = parse_config(yaml.safe_load(OWN))
    for number in range(2):
        generate_shard(config, "ddm", number, folder / f"shard-{number:05d}.safetensors")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_LOCATION", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def commands(path: Path, data: Path):
    """Every command that reads a configuration, such that it writes nothing."""
    run(generate, "--config-path", path, "--output", "out", "--dry-run")
    run(torchtrain, "--config-path", path, "--training-data-folder", data, "--networks-path-base", "nets", "--dry-run")
    run(lanline, "sync", "absent", "--config", path)
    run(lanline, "export", "run", "x.zip", "--config", path, "--uri", "nonsense:")


# --- configurations ---------------------------------------------------------------------------------------------------
def places(value, path=()):
    """The places of all values in plain data."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


@st.composite
def odd_configurations(draw) -> bytes:
    """A valid file with an odd value somewhere, or with a key that nobody knows."""
    values = yaml.safe_load(draw(st.sampled_from([OWN, LANFACTORY, SSMS])))
    *parents, last = draw(st.sampled_from([path for path in places(values) if path]))
    inside = values
    for key in parents:
        inside = inside[key]
    if isinstance(inside, dict) and draw(st.booleans()):
        last = draw(st.sampled_from([last, "unknown", "", 3, None, True]))
    inside[last] = draw(ODD)
    return yaml.safe_dump(values).encode()


@st.composite
def damaged_texts(draw) -> bytes:
    """A valid file with bytes that were changed, dropped, doubled or put in."""
    text = bytearray(draw(st.sampled_from([OWN, LANFACTORY, SSMS])).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text) - 1))
        piece = draw(
            st.sampled_from(
                [b"", b":", b"\t", b"- ", b"&a ", b"*a", b"{", b"]", b"\xff", b"\x00", b"'", b"!!x ", b"\n", b"0"]
            )
        )
        text[at : at + draw(st.integers(0, 12))] = piece
    return bytes(text)


@LIMITS
@given(
    content=st.one_of(
        odd_configurations(), damaged_texts(), st.binary(max_size=60), st.text(max_size=60).map(str.encode)
    )
)
def test_broken_configurations(made, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my.yaml"
        path.write_bytes(content)
        commands(path, made)


# --- data -------------------------------------------------------------------------------------------------------------
def pickled(number: int = 0) -> bytes:
    rng = np.random.default_rng(number)
    arrays = {"lan_data": rng.random((40, 6)), "lan_labels": rng.random(40)}
    return pickle.dumps({**arrays, "model_config": {"name": "ddm", "params": ["v", "a", "z", "t"]}}, 4)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(damaged)))
        match draw(st.sampled_from(["cut", "flip", "put", "drop"])):
            case "cut":
                del damaged[at:]
            case "flip" if at < len(damaged):
                damaged[at] ^= 1 << draw(st.integers(0, 7))
            case "put":
                damaged[at:at] = draw(st.binary(min_size=1, max_size=9))
            case _:
                del damaged[at : at + 8]
    return bytes(damaged)


@LIMITS
@given(data=st.data(), pickles=st.booleans())
def test_broken_data(made, data, pickles):
    """Both training commands look at them; what is still whole may pass."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, shard in enumerate(sorted(made.iterdir())):
            content = pickled(number) if pickles else shard.read_bytes()
            broken = data.draw(damaged(content)) if number == 0 else content
            (folder / (f"{number}.pickle" if pickles else shard.name)).write_bytes(broken)
        application = data.draw(st.sampled_from([torchtrain, jaxtrain]))
        run(application, "--training-data-folder", folder, "--networks-path-base", "nets", "--dry-run")


@settings(LIMITS, max_examples=300)
@given(
    program=st.lists(
        st.one_of(st.sampled_from([bytes([code]) for code in range(256)]), st.binary(max_size=5)), max_size=40
    )
)
def test_any_pickle_program_ends(program):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pickle"
        path.write_bytes(b"".join(program))
        try:
            assert isinstance(read_pickle(path), dict)
        except UserError as error:
            assert "x.pickle" in str(error) and "\n" not in str(error)  # noqa: PT017, PT018  either is right


# --- options ----------------------------------------------------------------------------------------------------------
VALUES = st.one_of(
    st.text(max_size=20),
    st.floats(allow_subnormal=False).map(str),
    st.integers().map(str),
    st.sampled_from(["", "a", "/", "\x00"]),
)
OPTIONS = ["--engine", "--target", "--delta-t", "--max-t", "--trajectories", "--output"]


@LIMITS
@given(
    model=st.one_of(st.sampled_from(["ddm", "full_ddm"]), VALUES),
    theta=st.lists(st.tuples(st.sampled_from(["v", "a", "z", "t", "sz", "x"]), VALUES), max_size=3),
    options=st.lists(st.tuples(st.sampled_from(OPTIONS), VALUES), min_size=1, max_size=2),
)
def test_odd_options_of_labels(model, theta, options):
    text = ",".join(f"{name}={value}" for name, value in theta)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            ("--output", f"{folder}/{value}") if name == "--output" else (name, value) for name, value in options
        ]
        run(lanline, "labels", f"--theta={text}", *(f"{name}={value}" for name, value in arguments), "--", model)


@LIMITS
@given(
    name=st.sampled_from(
        ["--seed", "--network-id", "--threads", "--mlflow-tracking-uri", "--log-level", "--dataset-id"]
    ),
    value=VALUES,
)
def test_odd_options_of_training(made, name, value):
    data = ("--training-data-folder", made, "--networks-path-base", "nets", "--dry-run")
    run(torchtrain, *data, f"{name}={value}")
    run(generate, "--output", "out", "--dry-run", f"--seed={value}")


@pytest.mark.parametrize("command", [torchtrain, jaxtrain])
def test_a_file_in_the_way_of_the_networks_is_named(made, command):
    Path("nets").write_text("mine")
    done = run(command, "--training-data-folder", made, "--networks-path-base", "nets")
    assert "nets is a file; expected a folder" in done.output
    assert Path("nets").read_text() == "mine"


def test_a_file_in_the_way_of_the_data_is_named():
    Path("own.yaml").write_text(OWN)
    Path("out").write_text("mine")
    assert "out" in run(generate, "--config-path", "own.yaml", "--output", "out").output


def test_refused_pickles_leave_nothing_behind(made):
    Path("data").mkdir()
    for number in range(2):
        Path(f"data/{number}.pickle").write_bytes(pickled(number))
    done = run(torchtrain, "--training-data-folder", "data", "--networks-path-base", "nets/mine")
    assert "problem(s) with the data in data" in done.output
    assert "--accept-data-problems" in done.output
    shutil.rmtree("data")
