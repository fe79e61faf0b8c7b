"""What a training command looks at before it trains: wrong data of any maker are named, honest ones pass."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from lanline.config import Data, parse_config
from lanline.dataset.checking import Given, check_training_data
from lanline.dataset.foreign import as_shard
from lanline.dataset.generate import generate_shard
from lanline.dataset.rows import probability_rows
from lanline.engines import densities
from lanline.errors import UserError
from lanline.models import get_model

DATA = {"shards": 3, "thetas_per_shard": 40, "rows_per_theta": 20}


def settings(model: str = "ddm", seed: int = 42, **data) -> dict:
    return {"name": "test", "models": [model], "seed": seed, "data": DATA | data}


def make(folder: Path, numbers=(0, 1, 2), **changes) -> list[Path]:
    config = parse_config(settings(**changes))
    paths = [folder / f"shard-{number:05d}.safetensors" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        generate_shard(config, config.models[0].name, number, path)
    return paths


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Shards of ddm; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    make(folder)
    return folder


@pytest.fixture
def shards(made, tmp_path) -> list[Path]:
    return sorted(Path(shutil.copytree(made, tmp_path / "data")).iterdir())


def check(files, network_type="lan", model="ddm", accept=False) -> tuple[str, ...]:
    return check_training_data(Given(Path("data"), files[1:], files[:1], network_type, model), accept)


def refused(files, *words: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        check(files, **options)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def change(path: Path, arrays=None, header=None) -> None:
    """Rewrite a shard with other arrays or another header."""
    with safe_open(path, "numpy") as file:
        content, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if arrays:
        arrays(content)
    value = json.loads(metadata["lanline"])
    if header:
        header(value["origin"])
    save_file(content, path, {"lanline": json.dumps(value)})


# --- lanline's own shards ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("network_type", ["lan", "cpn", "gonogo"])
def test_honest_shards_pass(shards, network_type):
    assert check(shards, network_type) == ()


@pytest.mark.parametrize("model", ["angle_deadline", "race_3", "full_ddm", "lba3", "weibull", "ornstein"])
def test_honest_shards_of_other_models_pass(tmp_path, model):
    assert check(make(tmp_path, (0, 1), model=model, thetas_per_shard=20), model=model) == ()


def test_honest_simulated_shards_pass_and_permuted_ones_do_not(tmp_path):
    simulated = {"engine": "simulation", "target": "euler", "delta_t": 0.005, "n_trajectories": 2000}
    files = make(tmp_path, (0, 1), thetas_per_shard=20, **simulated)
    assert check(files) == ()
    change(files[1], lambda arrays: np.random.default_rng(1).shuffle(arrays["lan_labels"]))
    refused(files, "shard-00001.safetensors", "not the log-densities of their rows")


def in_one_block(value):
    """All labels of the third block, which is not computed again as a whole in the first shard."""

    def labels(arrays):
        arrays["lan_labels"][32 * 20 :] = value

    return labels


def shuffled(arrays):
    np.random.default_rng(1).shuffle(arrays["lan_labels"])


def repeated(arrays):
    arrays["lan_data"][400:] = arrays["lan_data"][:400]
    arrays["lan_labels"][400:] = arrays["lan_labels"][:400]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (in_one_block(0.0), "differ from the engine's own"),
        (in_one_block(1e30), "lie above 20"),
        (in_one_block(-1e6), "lie below the floor"),
        (shuffled, "differ from the engine's own"),
        (repeated, "are duplicates"),
        (lambda arrays: arrays["lan_labels"].fill(-3), "are -3"),
        (lambda arrays: arrays["lan_data"].__setitem__((3, -2), 1e9), "beyond the time limit"),
        (lambda arrays: arrays["lan_data"].__setitem__((3, -2), -5), "below -1 s"),
        (lambda arrays: arrays["lan_data"].__setitem__((3, -2), -999), "-999"),
        (lambda arrays: arrays["lan_data"].__setitem__((3, 0), 7), "v outside"),
        (lambda arrays: arrays["lan_data"].__setitem__((3, -1), 0), "a choice other than -1, 1"),
        (lambda arrays: arrays["cpn_labels"].__setitem__(slice(32, None), 0.5), "cpn_labels differ"),
        (lambda arrays: arrays["gonogo_labels"].__setitem__(slice(None), 0.5), "gonogo_labels differ"),
        (lambda arrays: arrays["cpn_data"].__setitem__((slice(32, None), 0), 0.5), "cpn_data differ"),
    ],
)
def test_wrong_rows_of_a_shard_are_named_and_can_be_accepted(shards, arrays, words):
    change(shards[0], arrays)
    assert "accept_problems" in refused(shards, "shard-00000.safetensors", words)
    assert any(words in line for line in check(shards, accept=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_no_training_survives_is_never_accepted(shards, value):
    change(shards[1], lambda arrays: arrays["lan_labels"].__setitem__(5, value))
    assert "accept_problems" not in refused(shards, "NaN or infinite", accept=True)


def test_rows_that_validate_are_not_trained_on(shards):
    shutil.copy(shards[0], shards[2])
    refused(shards, "shard-00002.safetensors", "also in shard-00000.safetensors", "which validates the training")


@pytest.mark.parametrize(
    ("other", "words"),
    [({"max_t": 5.0}, "max_t 5.0"), ({"seed": 7}, "seed 7"), ({"floor": -30.0}, "floor -30.0")],
)
def test_one_folder_has_one_recipe(made, tmp_path, other, words):
    shutil.copytree(made, tmp_path / "data")
    make(tmp_path / "data", (2,), **other)
    refused(sorted((tmp_path / "data").iterdir()), words, "shard-00000.safetensors with")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (lambda origin: origin.pop("seed"), "seed"),
        (lambda origin: origin.pop("shard"), "shard"),
        (lambda origin: origin.pop("params"), "params"),
        (lambda origin: origin.update(max_t="twenty"), "max_t"),
        (lambda origin: origin.update(thetas_per_shard=[1]), "thetas_per_shard"),
        (lambda origin: origin.update(bounds="wide"), "bounds"),
        (lambda origin: origin.update(params=["a", "v", "z", "t"]), "expected v, a, z, t"),
        (lambda origin: origin.update(bounds={"v": [-99, 99]}), "is not within"),
        (lambda origin: origin.update(thetas_per_shard=41), "expected (820, 6)"),
        (lambda origin: origin.update(seed=43), "differ from the engine's own"),
    ],
)
def test_headers_that_cannot_be_right_are_named(shards, header, words):
    change(shards[0], header=header)
    refused(shards, "shard-00000.safetensors", words)


# --- pickles ----------------------------------------------------------------------------------------------------------
N = 400
MODEL = get_model("ddm_deadline")


def rows_of(model: str, rng) -> dict[str, np.ndarray]:
    """Rows as ssm-simulators would have them, with noise about as large as an estimate's."""
    found = get_model(model)
    low, high = np.array([found.bounds[param] for param in found.params], float).T
    theta = low + (high - low) * rng.random((N, len(low)))
    density = densities(found, theta, Data(), rng)
    rt, choice = (array[:, 0] for array in density.sample(1, rng))
    rt, choice = np.where(np.isnan(rt), 1.0, rt), np.where(np.isnan(choice), 1.0, choice)
    labels = np.maximum(density.log_density(rt[:, None], choice[:, None])[:, 0], -66.77497)
    arrays = {
        "lan_data": np.column_stack([theta, rt, choice]),
        "lan_labels": labels + rng.normal(0, 0.1, N) * (labels > -60),
    }
    for name, values in probability_rows(found, theta, density).items():
        noisy = np.clip(values + rng.normal(0, 0.01, values.shape), 0, 1)
        arrays[name] = noisy.reshape(N, -1) if name.endswith("_labels") else values
    arrays["gonogo_labels"] = 1 - arrays["cpn_labels"] * (1 - arrays.get("opn_labels", 0))
    arrays["cpn_no_omission_data"], arrays["cpn_no_omission_labels"] = arrays["cpn_data"], arrays["cpn_labels"]
    return arrays


def pickled(folder: Path, network_type: str = "lan", model: str = "ddm", twist=None, **parts) -> list[Path]:
    """Two pickles, made into shards."""
    files = []
    for number in range(2):
        content = rows_of(model, np.random.default_rng(number))
        if twist:
            twist(content)
        config = {"name": model, "params": list(get_model(model).params)}
        path = folder / f"training_data_{number}.pickle"
        path.write_bytes(pickle.dumps({"model_config": config, **content, **parts}))
        files.append(as_shard(path, folder / "shards", network_type, get_model(model).params, -16.0))
    return files


@pytest.mark.parametrize(
    ("network_type", "model"),
    [("lan", "ddm"), ("cpn", "ddm"), ("gonogo", "ddm"), ("lan", "ddm_deadline"), ("opn", "ddm_deadline")],
)
def test_honest_pickles_pass(tmp_path, network_type, model):
    assert check(pickled(tmp_path, network_type, model), network_type, model) == ()


def put(name, index, value):
    return lambda arrays: arrays[name].__setitem__(index, value)


def some_omitted(arrays):
    arrays["lan_data"][::7, -2] = -999


def milliseconds(arrays):
    arrays["lan_data"][:, -2] *= 1000


@pytest.mark.parametrize(
    ("twist", "words"),
    [
        (put("lan_data", (slice(None), -1), 0), "choice other than -1, 1"),
        (some_omitted, "58 rows have the rt -999"),
        (milliseconds, "milliseconds?"),
        (put("lan_data", (slice(None), 1), 20), "a outside [0.3, 2.5]"),
        (shuffled, "not the log-densities of their rows"),
        (put("lan_labels", slice(None), -1), "all 400 lan_labels are -1"),
        (put("lan_labels", 3, 1e30), "lie above 20"),
        (put("lan_data", slice(200, None), 1), "duplicates"),
        (put("lan_data", (slice(None, 9), -2), -0.5), "rt below 0 and a label above the floor"),
    ],
)
def test_wrong_rows_of_pickles_are_named(tmp_path, twist, words):
    refused(pickled(tmp_path, twist=twist), "training_data_1.pickle: ", words)


@pytest.mark.parametrize(
    ("network_type", "twist", "words"),
    [
        ("opn", put("opn_labels", slice(None), 0), "opn_labels are 0 at every theta"),
        ("gonogo", put("gonogo_labels", slice(None), 0.5), "contradict each other"),
        ("cpn", lambda arrays: np.random.default_rng(1).shuffle(arrays["cpn_no_omission_labels"]), "contradict"),
        ("gonogo", put("gonogo_labels", slice(0, 40), 0.9), "contradict each other"),
    ],
)
def test_probabilities_that_contradict_the_others_or_the_engine_are_named(tmp_path, network_type, twist, words):
    files = pickled(tmp_path, network_type, "ddm_deadline", twist)
    refused(files, words, network_type=network_type, model="ddm_deadline")


def test_pickles_of_two_recipes_or_among_shards_are_named(tmp_path, made):
    files = pickled(tmp_path, generator_config={"simulator": {"max_t": 20.0, "delta_t": 0.002}})
    (tmp_path / "b").mkdir()
    refused([files[0], pickled(tmp_path / "b")[1]], "delta_t 0.002, training_data_1.pickle with 0.001")
    refused([*sorted(made.iterdir()), files[1]], "differs in kind")
