"""What a training says that it used."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from lanline.commands.generate import main as generate
from lanline.commands.train import torchtrain
from lanline.config import Network, Training
from lanline.errors import UserError
from lanline.models import get_model
from lanline.networks.artifacts import read_history
from lanline.networks.specification import make_spec
from lanline.stages.train_network import train_networks, used_settings
from lanline.tracking.journal.events import read_events
from lanline.training.loop import train as train_loop

ALWAYS = {"epochs", "batch_size", "learning_rate", "warmup_fraction", "optimizer", "schedule", "loss"}
SOMETIMES = {"momentum", "decay", "patience", "threshold", "min_learning_rate", "huber_delta", "label_floor"}


@pytest.mark.parametrize(
    ("network_type", "settings", "used"),
    [
        ("lan", {}, {"huber_delta", "label_floor"}),
        ("lan", {"loss": "mse", "optimizer": "sgd"}, {"momentum", "label_floor"}),
        ("lan", {"schedule": "exponential", "loss": "mse"}, {"decay", "label_floor"}),
        ("cpn", {"schedule": "reduce_on_plateau"}, {"decay", "patience", "threshold", "min_learning_rate"}),
    ],
)
def test_settings_of_other_optimizers_schedules_and_losses_are_left_out(network_type, settings, used):
    spec = make_spec(Network(name="n", network_type=network_type), get_model("ddm"))
    told = used_settings(Training(**settings), spec)
    assert told.keys() >= ALWAYS
    assert told.keys() & SOMETIMES == used
    assert told["loss"] == ("bce" if network_type == "cpn" else settings.get("loss", "huber"))


# --- a training from its start to its sidecar ---
CONFIG = """
data: {shards: 2, thetas_per_shard: 16, rows_per_theta: 25}
models: [ddm]
networks: [{name: small, hidden_layers: [8], activations: [tanh]}]
training: {epochs: 3, batch_size: 128, learning_rate: 0.3, schedule: constant, keep: best}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "config.yaml").write_text(CONFIG)
    options = ["--config-path", str(folder / "config.yaml"), "--output", str(folder / "data")]
    assert CliRunner().invoke(generate, options).exit_code == 0
    return folder


def train(data, folder, fails=False):
    options = ["--config-path", data / "config.yaml", "--training-data-folder", data / "data"]
    options += ["--networks-path-base", folder, "--threads", 1]
    done = CliRunner().invoke(torchtrain, [str(option) for option in options])
    assert (done.exit_code != 0) == fails, done.output
    return done.output


def events(folder):
    """Of each run in the folder, in the order in which they began."""
    return [[event.model_dump() for event, _ in read_events(path)] for path in sorted(folder.rglob("journal/*.jsonl"))]


class Killed(Exception):
    pass


def killed(*_):
    raise Killed


def killed_after_an_epoch(*arguments, on_epoch, **others):
    train_loop(*arguments, on_epoch=killed, **others)


def test_the_checkpoint_is_kept_until_the_sidecar_is_there(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lanline.stages.train_network.TrainingSidecar.write", killed)
        train(data, tmp_path, fails=True)
    assert list(tmp_path.rglob("checkpoint.safetensors"))
    assert "resuming from" in train(data, tmp_path)
    assert not list(tmp_path.rglob("checkpoint.safetensors"))
    assert list(tmp_path.rglob("run.json"))


def test_of_trainings_that_share_a_job_the_one_that_failed_is_named(monkeypatch, capsys):
    trained = []

    def fails_at_s2(request):
        trained.append(request.run)
        if request.run == "s2":
            raise UserError("the loss became NaN")

    monkeypatch.setattr("lanline.stages.train_network.train_network", fails_at_s2)
    with pytest.raises(UserError, match="the loss became NaN"):
        train_networks([SimpleNamespace(run=run) for run in ("s1", "s2", "s3")])
    assert trained == ["s1", "s2"]
    assert "s2 failed (one of 3 trainings in this job)" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["training_code", "library_versions", None])
def test_a_run_is_gone_on_with_by_its_own_code_and_libraries_only(data, tmp_path, monkeypatch, changed):
    with monkeypatch.context() as patch:
        patch.setattr("lanline.stages.train_network.train", killed_after_an_epoch)
        train(data, tmp_path, fails=True)
    if changed:
        monkeypatch.setattr(f"lanline.training.job.{changed}", lambda *names: "another")
    output = train(data, tmp_path)
    assert ("starting from scratch" if changed else "resuming from") in output
    runs = events(tmp_path)
    assert len(runs) == (2 if changed else 1)
    for run in runs[-1:]:
        steps = [event["step"] for event in run if "train_loss" in event.get("metrics", {})]
        assert steps == [1, 2, 3]


def test_what_is_kept_lies_beside_the_curves_and_not_in_them(data, tmp_path):
    train(data, tmp_path)
    [history] = [read_history(path) for path in tmp_path.rglob("history.csv")]
    losses = [epoch["validation_loss"] for epoch in history]
    [metrics] = [json.loads(path.read_text()) for path in tmp_path.rglob("metrics.json")]
    assert metrics["kept_validation_loss"] == pytest.approx(min(losses))
    assert metrics["kept_epoch"] == 1 + losses.index(min(losses))
    [run] = events(tmp_path)
    told = [event["metrics"]["validation_loss"] for event in run if "validation_loss" in event.get("metrics", {})]
    assert [float(value) for value in told] == pytest.approx(losses)
