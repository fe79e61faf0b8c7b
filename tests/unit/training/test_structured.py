"""Training of networks that learn only the rest of a leading term: the promises for raw ones, on real labels."""

import numpy as np
import pytest

from lanline.config import Network, Training, parse_config
from lanline.dataset.generate import generate_shard
from lanline.models import get_model
from lanline.networks.artifacts import read_network, write_network
from lanline.networks.specification import forward, make_spec
from lanline.training.job import Job
from lanline.training.loop import train
from lanline.training.reader import PIECE_ROWS, RARE, lowest_label, pieces_of, read_piece, training_rows

FRAMEWORKS = ["torch", "jax"]
MODEL = "weibull"
SETTINGS = Training(epochs=2, batch_size=500)
VALUES = {
    "name": "t",
    "models": [MODEL],
    "networks": [{"name": "lan"}],
    "data": {"shards": 3, "thetas_per_shard": 400, "rows_per_theta": 50},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weibull")
    paths = [folder / f"shard-{i}.safetensors" for i in range(3)]
    for i, path in enumerate(paths):
        generate_shard(parse_config(VALUES), MODEL, i, path)
    return paths


def spec_with(features="auto"):
    network = Network(name="lan", features=features, hidden_layers=[24, 24], activations=["tanh"] * 2)
    return make_spec(network, get_model(MODEL))


def run(files, framework="torch", settings=SETTINGS, checkpoint=None, on_epoch=None, features="auto"):
    job = Job(spec_with(features), settings, framework, 1, files[1:], files[:1], "d", threads=2)
    return train(job, checkpoint, on_epoch or (lambda metrics, step: None), lambda line: None)


def same(one, two):
    return all((one.weights[name] == two.weights[name]).all() for name in one.weights)


def validation_error(trained, files):
    rows = np.concatenate([read_piece(piece, spec_with()) for piece in pieces_of(files[:1], spec_with())])
    counted = rows[:, -1] > -10
    return np.abs(trained.forward(rows[:, :-1]) - rows[:, -1])[counted].mean()


def test_the_same_rows_and_steps_teach_far_more_than_on_raw_inputs(files):
    errors = [validation_error(run(files, "jax", features=features), files) for features in ("auto", "raw")]
    assert errors[0] < 0.1 * errors[1]


def test_both_frameworks_reach_the_same_losses(files):
    histories = [run(files, framework).history for framework in FRAMEWORKS]
    for one, two in zip(*histories, strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-3)
        assert one["validation_mae"] == pytest.approx(two["validation_mae"], rel=1e-2)


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("buffer_gb", [2.0, 1e-9])
def test_an_interrupted_training_goes_on_bit_for_bit(files, tmp_path, framework, buffer_gb):
    settings = Training(**{**SETTINGS.model_dump(), "buffer_gb": buffer_gb})

    def interrupt(metrics, step):
        raise Interrupt

    whole = run(files, framework, settings)
    with pytest.raises(Interrupt):
        run(files, framework, settings, tmp_path / "c", interrupt)
    resumed = run(files, framework, settings, tmp_path / "c")
    assert resumed.resumed
    assert same(whole, resumed)


def test_the_network_folder_holds_the_structure(files, tmp_path):
    trained, spec = run(files), spec_with()
    assert write_network(tmp_path, spec, trained.weights, {}, trained.history, trained.forward, trained.sample) < 1e-3
    found, weights, _ = read_network(tmp_path)
    assert found == spec
    x = trained.sample.astype(np.float64)
    np.testing.assert_allclose(forward(found, weights, x), trained.forward(trained.sample), rtol=1e-4, atol=1e-3)


def test_what_is_known_to_lie_below_the_floor_is_not_learned(files):
    """A leading term below the lowest label says as much as the label."""
    spec = spec_with()
    rows = read_piece(pieces_of(files[:1], spec, PIECE_ROWS)[0], spec)
    floor = float(rows[:, -1].min())
    assert lowest_label(spec, None, rows) == RARE > floor
    before = rows[:, -3] < rows[:, spec.inputs.index("t")]
    rest = training_rows(rows, spec, floor)[:, -1]
    assert before.any()
    assert (rest[before] == 0).all()
    _, leading = spec.prepare(rows[:, :-1])
    np.testing.assert_allclose(rest, rows[:, -1] - np.maximum(leading, floor), atol=1e-5)
