"""The files for LANfactory, read by LANfactory's own classes."""

import io
import pickle

import numpy as np
import pytest

from lanline.config import Network, Training
from lanline.models import get_model
from lanline.networks.initial import initial_weights
from lanline.networks.lanfactory_files import flax_bytes, write_lanfactory_files
from lanline.networks.specification import forward, make_spec

HISTORY = [{"epoch": 1, "validation_loss": 0.5}, {"epoch": 2, "validation_loss": 0.25}]
FILES = {"training": ["b.safetensors"], "validation": ["a.safetensors"]}


def network(**changes):
    settings = Network(
        **{"name": "lan", "features": "raw", "hidden_layers": [7, 5], "activations": ["tanh", "relu"], **changes}
    )
    spec = make_spec(settings, get_model("ddm"))
    weights = initial_weights(spec, 3)
    # Biases other than zero, so that a mistake in them is seen.
    return spec, {name: array + np.float32(0.1) * (array.ndim == 1) for name, array in weights.items()}


def write(folder, framework, **changes):
    spec, weights = network(**changes)
    files = write_lanfactory_files(
        folder, "r1", framework, spec, weights, Training(), HISTORY, FILES, {"dataset_id": "d"}
    )
    rows = np.random.default_rng(0).normal(size=(20, len(spec.inputs))).astype(np.float32)
    return files, rows, forward(spec, weights, rows)


@pytest.mark.slow
def test_torch_mlp_gives_the_same_numbers(tmp_path):
    torch_mlp = pytest.importorskip("lanfactory.trainers.torch_mlp")
    files, rows, expected = write(tmp_path, "torch")
    assert sorted(path.name for path in files) == [
        "ddm_lan_r1_data_details.pickle",
        "ddm_lan_r1_train_config.pickle",
        "ddm_lan_r1_train_state_dict.pt",
        "ddm_lan_r1_training_history.csv",
        "r1_lan_ddm_network_config.pickle",
    ]
    state, config = (str(next(path for path in files if end in path.name)) for end in ("state_dict", "network_config"))
    loaded = torch_mlp.LoadTorchMLPInfer(state, config, input_dim=rows.shape[1], network_type="lan")
    np.testing.assert_allclose(loaded.predict_on_batch(rows)[:, 0], expected, atol=1e-6)


@pytest.mark.slow
def test_jax_mlp_gives_the_same_numbers(tmp_path):
    jax_mlp = pytest.importorskip("lanfactory.trainers.jax_mlp")
    files, rows, expected = write(tmp_path, "jax")
    assert sorted(path.name for path in files) == [
        "r1_lan_ddm__data_details.pickle",
        "r1_lan_ddm__jax_training_history.csv",
        "r1_lan_ddm__train_config.pickle",
        "r1_lan_ddm__train_state.jax",
        "r1_lan_ddm_network_config.pickle",
    ]
    state, config = (str(next(path for path in files if end in path.name)) for end in ("_state", "network_config"))
    net = jax_mlp.JaxMLPFactory(config, train=False)
    predict, _ = net.make_forward_partial(input_dim=rows.shape[1], state=state)
    np.testing.assert_allclose(np.asarray(predict(rows))[:, 0], expected, atol=1e-6)


@pytest.mark.slow
def test_torch_mlp_gives_the_log_probability_of_the_upper_choice(tmp_path):
    torch_mlp = pytest.importorskip("lanfactory.trainers.torch_mlp")
    files, rows, logits = write(tmp_path, "torch", network_type="cpn")
    state, config = (str(next(path for path in files if end in path.name)) for end in ("state_dict", "network_config"))
    loaded = torch_mlp.LoadTorchMLPInfer(state, config, input_dim=rows.shape[1], network_type="cpn")
    np.testing.assert_allclose(loaded.predict_on_batch(rows)[:, 0], -np.logaddexp(0, -logits), atol=1e-6)


def test_a_network_with_several_outputs_gives_no_files(tmp_path):
    spec = make_spec(Network(name="n", network_type="cpn"), get_model("race_3"))
    arguments = (spec, initial_weights(spec, 1), Training(), HISTORY, FILES, {})
    assert write_lanfactory_files(tmp_path, "r1", "torch", *arguments) == []


def test_flax_bytes_are_those_of_flax():
    serialization = pytest.importorskip("flax.serialization")
    spec, weights = network()
    params = {
        f"layers_{i}": {"kernel": weights[f"layer_{i}.weight"].T, "bias": weights[f"layer_{i}.bias"]}
        for i in range(len(spec.layers))
    }
    assert flax_bytes(weights, len(spec.layers)) == serialization.to_bytes({"params": params})


def test_configs_and_history_have_lanfactorys_form(tmp_path):
    files, *_ = write(tmp_path, "torch")
    by_end = {path.name.split("r1_")[1].replace("lan_ddm_", ""): path for path in files}
    assert pickle.loads(by_end["network_config.pickle"].read_bytes()) == {  # noqa: S301  written just above
        "layer_sizes": [7, 5, 1],
        "activations": ["tanh", "relu", "linear"],
        "train_output_type": "logprob",
        "network_type": "lan",
    }
    details = pickle.loads(by_end["data_details.pickle"].read_bytes())  # noqa: S301
    assert details["train_datafile_ids"] == ["b.safetensors"]
    assert details["valid_datafile_ids"] == ["a.safetensors"]
    pandas = pytest.importorskip("pandas")
    expected = pandas.DataFrame({"epoch": [0.0, 1.0], "val_loss": [0.5, 0.25]})
    text = io.StringIO()
    expected.to_csv(text)
    assert by_end["training_history.csv"].read_text() == text.getvalue()


def test_a_network_that_lanfactory_cannot_load_gives_no_files(tmp_path):
    files, *_ = write(tmp_path, "torch", activations=["gelu", "tanh"])
    assert files == []
    assert list(tmp_path.iterdir()) == []
