"""jaxtrain, torchtrain and generate without MLflow: options, files, messages."""

import json
import pickle
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from typer.testing import CliRunner

from lanline.commands.generate import main as generate
from lanline.commands.main import main as lanline
from lanline.commands.train import jaxtrain, torchtrain
from lanline.models import get_model
from lanline.networks.artifacts import read_network
from lanline.networks.onnx_files import run_onnx
from lanline.networks.specification import forward
from lanline.sidecars import DatasetSidecar

OWN = """
data: {shards: 3, thetas_per_shard: 16, rows_per_theta: 25}
models: [ddm]
networks:
  - {name: small, hidden_layers: [16, 16], activations: [tanh, tanh]}
  - {name: other, hidden_layers: [8], activations: [relu]}
training: {epochs: 2, batch_size: 128}
"""
LANFACTORY = """
NETWORK_TYPE: lan
MODEL: ddm
LAYER_SIZES: [[16, 16, 1], [8, 1]]
ACTIVATIONS: [[tanh, tanh], [relu]]
CPU_BATCH_SIZE: 100
GPU_BATCH_SIZE: 100
N_EPOCHS: 2
LABELS_LOWER_BOUND: np.log(1e-7)
"""
CONFIGS = {"own": OWN, "lanfactory": LANFACTORY}


def run(application, *arguments, fails: bool = False) -> str:
    """Run a command in this process; gives all that it printed."""
    done = CliRunner().invoke(application, [str(argument) for argument in arguments])
    assert (done.exit_code != 0) == fails, done.output
    if fails:
        assert "Traceback" not in done.output
        assert done.exit_code in (1, 2)
    return done.output


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every command runs in a folder of its own, without a user's MLflow settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_LOCATION", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, text in CONFIGS.items():
        Path(f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data set made by `generate`; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "own.yaml").write_text(OWN)
    run(generate, "--config-path", folder / "own.yaml", "--output", folder / "data", "--cores", 1)
    return folder / "data"


def pickles(shards: Path, folder: Path) -> Path:
    """The same rows as ssm-simulators would have pickled them."""
    folder.mkdir()
    for path in sorted(shards.glob("*.safetensors")):
        content = {**load_file(path), "model_config": {"name": "ddm", "params": ["v", "a", "z", "t"]}}
        (folder / f"{path.stem}.pickle").write_bytes(pickle.dumps(content, 4))
    return folder


def network_of(base: Path) -> Path:
    """The one network below --networks-path-base."""
    [folder] = [path for path in (base / "lan/ddm").iterdir() if path.is_dir()]
    return folder


def weights(base: Path) -> dict[str, np.ndarray]:
    return load_file(network_of(base) / "weights.safetensors")


# --- generate ---------------------------------------------------------------------------------------------------------
def test_generate_makes_the_same_bytes_and_adds_files(made):
    run(generate, "--config-path", "own.yaml", "--output", "again", "-n", 2, "--cores", 1)
    first = {path.name: path.read_bytes() for path in Path("again").glob("*.safetensors")}
    assert len(first) == 2
    times = {path.name: path.stat().st_mtime_ns for path in Path("again").glob("*.safetensors")}
    run(generate, "--config-path", "own.yaml", "--output", "again", "--cores", 2)
    for path in Path("again").glob("*.safetensors"):
        assert path.read_bytes() == (made / path.name).read_bytes()
        assert path.stat().st_mtime_ns == times.get(path.name, path.stat().st_mtime_ns)
    again, first_made = (DatasetSidecar.read(folder / "dataset.json") for folder in (Path("again"), made))
    assert again.dataset_id == first_made.dataset_id


def test_generate_refuses_a_folder_with_other_data(made):
    shutil.copytree(made, "data")
    output = run(generate, "--config-path", "own.yaml", "--output", "data", "--seed", 7, fails=True)
    assert "made with other settings or another seed" in output
    assert {path.name for path in Path("data").iterdir()} == {path.name for path in made.iterdir()}


def test_generates_dry_run_writes_nothing():
    output = run(generate, "--config-path", "own.yaml", "--output", "data", "--n-files", 5, "--dry-run")
    assert "5 files of ddm with 400 rows each (engine closed_form)" in output
    assert not Path("data").exists()


def test_generate_takes_one_model():
    Path("two.yaml").write_text("models: [ddm, angle]")
    output = run(generate, "--config-path", "two.yaml", "--output", "data", fails=True)
    assert "several models (ddm, angle)" in output


@pytest.mark.slow
def test_generate_runs_ssm_simulators_file():
    Path("ssms.yaml").write_text(
        "MODEL: ddm\nGENERATOR_APPROACH: lan\nPIPELINE: {N_PARAMETER_SETS: 4, N_SUBRUNS: 2}\n"
        "SIMULATOR: {N_SAMPLES: 300, DELTA_T: 0.001}\nTRAINING: {N_SAMPLES_PER_PARAM: 10}\n"
    )
    run(generate, "--config-path", "ssms.yaml", "--output", "data", "--n-files", 1, "--cores", 1)
    assert load_file("data/shard-00000.safetensors")["lan_data"].shape == (40, 6)


# --- one command line -------------------------------------------------------------------------------------------------
def test_lanline_generates_and_trains_as_the_other_names_do(made):
    """`generate` may be ssm-simulators' script: `lanline generate` is always this one."""
    options = ("--config-path", "own.yaml")
    run(lanline, "generate", *options, "--output", "data", "--cores", 1)
    for path in made.glob("*.safetensors"):
        assert (Path("data") / path.name).read_bytes() == path.read_bytes()
    options = (*options, "--training-data-folder", "data", "--threads", 1)
    run(lanline, "train", "--framework", "torch", *options, "--networks-path-base", "a")
    run(torchtrain, *options, "--networks-path-base", "b")
    assert network_of(Path("a")).name == network_of(Path("b")).name
    for name, array in weights(Path("a")).items():
        np.testing.assert_array_equal(array, weights(Path("b"))[name])
    assert "--framework" in run(lanline, "train", *options, "--networks-path-base", "c", fails=True)


def test_two_distributions_claim_the_script_generate():
    """The reason why docs/commands.md names `lanline generate`: once there is one of them only, say so there."""
    claimed = {
        script.value
        for name in ("lanline", "ssm-simulators")
        for script in distribution(name).entry_points.select(group="console_scripts", name="generate")
    }
    assert len(claimed) == 2
    assert "lanline.commands.generate:main" in claimed


# --- training, traditional mode ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", ["own", "lanfactory"])
@pytest.mark.parametrize("application", [torchtrain, jaxtrain], ids=["torch", "jax"])
def test_a_folder_of_shards_trains(made, application, config):
    run(application, "--config-path", f"{config}.yaml", "--training-data-folder", made, "--networks-path-base", "nets")
    folder = network_of(Path("nets"))
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "hssm.json",
        "weights.safetensors",
        "network.json",
        "history.csv",
        "run.json",
        "report",
    }
    assert json.loads((folder / "report/files_used.json").read_text()) == {
        "training": ["shard-00001.safetensors", "shard-00002.safetensors"],
        "validation": ["shard-00000.safetensors"],
    }
    for name in ("config.yaml", "metrics.json"):
        assert (folder / "report" / name).stat().st_size > 0
    recorded = DatasetSidecar.read(made / "dataset.json")
    identity = json.loads((folder / "network.json").read_text())["identity"]
    assert (identity["dataset_id"], identity["lineage_id"]) == (recorded.dataset_id, recorded.lineage_id)
    spec, found, _ = read_network(folder)
    rows = load_file(made / "shard-00000.safetensors")["lan_data"][:5]
    np.testing.assert_allclose(run_onnx(folder / "model.onnx", rows), forward(spec, found, rows), rtol=1e-4, atol=1e-4)
    assert not Path("mlflow.db").exists()
    assert not Path("mlruns").exists()


def test_a_network_has_the_bounds_of_its_data(tmp_path, monkeypatch):
    """Not the registry's: HSSM would look where nothing was learned."""
    monkeypatch.chdir(tmp_path)
    data = "{shards: 2, thetas_per_shard: 20, rows_per_theta: 10}"
    Path("narrow.yaml").write_text(f"models: [{{name: ddm, bounds: {{v: [-1, 2]}}}}]\ndata: {data}\n")
    run(generate, "--config-path", "narrow.yaml", "--output", "data")
    Path("own.yaml").write_text(
        "networks: [{name: lan, hidden_layers: [4], activations: [tanh]}]\ntraining: {epochs: 1}\n"
    )
    run(torchtrain, "--config-path", "own.yaml", "--training-data-folder", "data", "--networks-path-base", "nets")
    [for_hssm] = Path("nets").rglob("hssm.json")
    bounds = json.loads(for_hssm.read_text())["bounds"]
    assert (bounds["v"], bounds["a"]) == ([-1, 2], list(get_model("ddm").bounds["a"]))


@pytest.mark.parametrize(("network_type", "inputs"), [("cpn", 5), ("gonogo", 4)])
def test_networks_that_give_probabilities_train_on_the_same_shards(made, network_type, inputs):
    values = {"NETWORK_TYPE": network_type, "MODEL": "ddm", "LAYER_SIZES": [[8, 1]], "ACTIVATIONS": [["tanh"]]}
    Path("p.yaml").write_text(yaml.safe_dump({**values, "N_EPOCHS": 2, "CPU_BATCH_SIZE": 4, "GPU_BATCH_SIZE": 4}))
    run(torchtrain, "--config-path", "p.yaml", "--training-data-folder", made, "--networks-path-base", "nets")
    (folder,) = (path.parent for path in Path("nets").glob(f"{network_type}/ddm/*/model.onnx"))
    report = yaml.safe_load((folder / "report/config.yaml").read_text())
    assert report["networks"][0]["network_type"] == network_type
    theta = load_file(made / "shard-00000.safetensors")["cpn_data"]
    values = run_onnx(folder / "model.onnx", np.column_stack([theta, np.ones(len(theta))])[:, :inputs])
    assert (values <= 0).all()
    recorded = DatasetSidecar.read(made / "dataset.json")
    identity = json.loads((folder / "network.json").read_text())["identity"]
    assert (identity["dataset_id"], identity["lineage_id"]) == (recorded.dataset_id, recorded.lineage_id)


@pytest.mark.parametrize(
    ("application", "state"), [(torchtrain, "*_train_state_dict.pt"), (jaxtrain, "*_train_state.jax")]
)
def test_lanfactorys_files_lie_where_lanfactory_puts_them(made, application, state):
    Path("raw.yaml").write_text(OWN.replace("name: small,", "name: small, features: raw,"))
    run(application, "--config-path", "raw.yaml", "--training-data-folder", made, "--networks-path-base", "nets")
    names = [
        "*_network_config.pickle",
        "*_train_config.pickle",
        "*_data_details.pickle",
        "*_training_history.csv",
        state,
    ]
    for name in names:
        assert len(list(Path("nets/lan/ddm").glob(name))) == 1, name


def test_a_network_with_features_has_no_files_for_lanfactory_and_says_why(made):
    output = run(
        torchtrain, "--config-path", "own.yaml", "--training-data-folder", made, "--networks-path-base", "nets"
    )
    assert "no files for LANfactory's loaders" in output
    assert "features: raw" in output
    assert [path.name for path in Path("nets/lan/ddm").iterdir()] == [network_of(Path("nets")).name]
    assert read_network(network_of(Path("nets")))[0].structure is not None


def test_the_default_configuration_needs_no_file(made):
    run(torchtrain, "--training-data-folder", made, "--networks-path-base", "nets")
    assert read_network(network_of(Path("nets")))[0].layers == (100, 100, 100, 1)


def test_pickles_give_the_network_that_the_same_shards_give(made, tmp_path):
    options = ("--config-path", "lanfactory.yaml", "--threads", 1)
    run(torchtrain, *options, "--training-data-folder", made, "--networks-path-base", "from_shards")
    folder = pickles(made, tmp_path / "pickled")
    run(torchtrain, *options, "--training-data-folder", folder, "--networks-path-base", "from_pickles")
    expected = weights(Path("from_shards"))
    for name, array in weights(Path("from_pickles")).items():
        np.testing.assert_array_equal(array, expected[name])
    used = json.loads((network_of(Path("from_pickles")) / "report/files_used.json").read_text())
    assert used["validation"] == ["shard-00000.pickle"]
    assert not (network_of(Path("from_pickles")) / "shards").exists()


def test_labels_are_raised_to_the_lower_bound(made):
    """A network that is trained on labels that are all the bound learns the bound."""
    Path("flat.yaml").write_text(LANFACTORY.replace("np.log(1e-7)", "5.0").replace("N_EPOCHS: 2", "N_EPOCHS: 60"))
    run(torchtrain, "--config-path", "flat.yaml", "--training-data-folder", made, "--networks-path-base", "nets")
    spec, found, _ = read_network(network_of(Path("nets")))
    rows = load_file(made / "shard-00000.safetensors")["lan_data"]
    assert abs(float(forward(spec, found, rows).mean()) - 5) < 1


def test_network_id_and_seed_choose(made):
    options = ("--config-path", "own.yaml", "--training-data-folder", made, "--threads", 1)
    run(torchtrain, *options, "--networks-path-base", "a", "--network-id", 1, "--seed", 5)
    run(torchtrain, *options, "--networks-path-base", "b", "--network-id", 1, "--seed", 5)
    run(torchtrain, *options, "--networks-path-base", "c", "--network-id", 1, "--seed", 6)
    assert network_of(Path("a")).name.startswith("ddm-other-torch-s5-")
    first, again, other = (weights(Path(base))["layer_0.weight"] for base in "abc")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert "has 2 networks" in run(torchtrain, *options, "--networks-path-base", "a", "--network-id", 2, fails=True)


def test_other_settings_never_overwrite_a_network(made):
    options = ("--training-data-folder", made, "--networks-path-base", "nets")
    for config in ("own", "lanfactory", "own"):
        run(torchtrain, "--config-path", f"{config}.yaml", *options)
    assert len([path for path in Path("nets/lan/ddm").iterdir() if path.is_dir()]) == 2


def test_no_export_onnx_keeps_no_onnx_file(made):
    options = ("--config-path", "own.yaml", "--training-data-folder", made, "--networks-path-base", "nets")
    run(torchtrain, *options, "--no-export-onnx")
    assert not (network_of(Path("nets")) / "model.onnx").exists()
    assert (network_of(Path("nets")) / "weights.safetensors").exists()
    run(torchtrain, *options, "--export-onnx")
    assert (network_of(Path("nets")) / "model.onnx").exists()


def test_a_dry_run_checks_and_writes_nothing(made):
    before = sorted(Path().rglob("*"))
    options = ("--config-path", "lanfactory.yaml", "--networks-path-base", "nets", "--dry-run")
    output = run(jaxtrain, *options, "--training-data-folder", made)
    assert "would train [16, 16] with jax on cpu" in output
    assert "2 files to train on, 1 to validate on" in output
    assert sorted(Path().rglob("*")) == before
    Path("broken").mkdir()
    for name in ("a", "b"):
        Path(f"broken/{name}.pickle").write_bytes(b"no pickle")
    assert "a.pickle cannot be read" in run(jaxtrain, *options, "--training-data-folder", "broken", fails=True)


def test_the_folder_of_the_file_is_used_when_no_option_names_one(made):
    Path("lanfactory.yaml").write_text(LANFACTORY + f"TRAINING_DATA_FOLDER: {made}\n")
    options = ("--config-path", "lanfactory.yaml", "--networks-path-base", "nets", "--dry-run")
    assert str(made) in run(torchtrain, *options)
    assert "elsewhere, does not exist" in run(torchtrain, *options, "--training-data-folder", "elsewhere", fails=True)


def test_options_that_need_a_word_get_one(made):
    options = ("--config-path", "own.yaml", "--training-data-folder", made, "--networks-path-base", "nets", "--dry-run")
    assert "--dl-workers 4 has no effect" in run(torchtrain, *options, "--dl-workers", 4)
    assert "--mlflow-on turns it on" in run(torchtrain, *options, "--mlflow-tracking-uri", "sqlite:///x.db")
    assert "expected one of DEBUG" in run(torchtrain, *options, "--log-level", "LOUD", fails=True)
    assert "DEBUG" not in run(torchtrain, *options, "-l", "error")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no training data: pass --training-data-folder"),
        (("--training-data-folder", "absent"), "absent, does not exist"),
        (("--training-data-folder", "."), "has no training data (files ending in .safetensors, .pickle, .pkl)"),
        (("--dataset-id", "a1"), "add --data-generation-experiment-id"),
        (("--config-path", "absent.yaml"), "absent.yaml: No such file"),
        (("--mlflow-on", "--mlflow-tracking-uri", "./mlruns"), "is not one of sqlite"),
    ],
)
def test_mistakes_end_with_one_message_and_nothing_written(arguments, message):
    before = sorted(Path().rglob("*"))
    output = run(torchtrain, "--networks-path-base", "nets", *arguments, fails=True)
    assert message in output
    assert sorted(Path().rglob("*")) == before


def test_data_of_two_models_are_not_mixed(made):
    shutil.copytree(made, "data")
    content = {
        **load_file("data/shard-00001.safetensors"),
        "model_config": {"name": "levy", "params": ["v", "a", "z", "t"]},
    }
    Path("data/z.pickle").write_bytes(pickle.dumps(content, 4))
    options = ("--config-path", "lanfactory.yaml", "--training-data-folder", "data", "--networks-path-base", "nets")
    assert "holds data of levy, expected ddm" in run(torchtrain, *options, fails=True)


@pytest.mark.parametrize("name", ["jaxtrain", "torchtrain", "generate", "lanline"])
def test_help_of_the_installed_commands_imports_nothing_heavy(name):
    """Its half second is kept by what is not imported; times on a busy machine say nothing."""
    script = Path(sys.executable).parent / name
    code = (
        f"import sys, runpy; sys.argv = [{name!r}, '--help']\n"
        f"try:\n    runpy.run_path({str(script)!r}, run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print('loaded', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rsplit("loaded", 1)[1].split())
    assert "lanline" in loaded
    assert not loaded & {"torch", "jax", "mlflow", "numba", "ssms", "scipy", "onnx", "pydantic", "numpy", "rich"}
    if name != "lanline":
        assert "--mlflow-tracking-uri" in done.stdout
