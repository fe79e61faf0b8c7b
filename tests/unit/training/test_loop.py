"""The training loop: what it learns, what it reports, and that a killed training goes on as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lanline.config import Network, Training
from lanline.dataset.shards import write_shard
from lanline.errors import UserError
from lanline.models import get_model
from lanline.networks.specification import forward, make_spec
from lanline.training.backend import BLOCK_ROWS
from lanline.training.job import Job
from lanline.training.loop import train

FRAMEWORKS = ["torch", "jax"]
SPEC = make_spec(
    Network(name="lan", features="raw", hidden_layers=[16, 16], activations=["tanh"] * 2), get_model("ddm")
)
SETTINGS = Training(epochs=3, batch_size=500, learning_rate=0.01)


def write_files(folder: Path, rows_of_files: list[int]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    paths = []
    for i, n in enumerate(rows_of_files):
        data = rng.uniform(-2, 2, (n, 6)).astype(np.float32)
        labels = (np.sin(data[:, 0]) + data[:, 1] * data[:, 4]).astype(np.float32)
        paths.append(folder / f"shard-{i}.safetensors")
        write_shard(paths[-1], {"lan_data": data, "lan_labels": labels}, {})
    return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("data"), [3_000, 20_000, 10_300])


def run(files, framework="torch", settings=SETTINGS, seed=1, checkpoint=None, on_epoch=None, data_id="d"):
    job = Job(SPEC, settings, framework, seed, files[1:], files[:1], data_id, threads=2)
    lines = []
    return train(job, checkpoint, on_epoch or (lambda metrics, step: None), lines.append), lines


def same(one, two):
    return all((one.weights[name] == two.weights[name]).all() for name in one.weights)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_learns_and_reports_each_epoch(files, framework):
    seen = []
    trained, lines = run(files, framework, on_epoch=lambda metrics, step: seen.append((step, metrics)))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert [metrics for _, metrics in seen] == trained.history
    assert trained.history[-1]["validation_mae"] < 0.2 < trained.history[0]["validation_mae"]
    assert len([line for line in lines if line.startswith("epoch")]) == 3
    x = trained.sample
    assert x.shape == (1000, 6)
    np.testing.assert_allclose(trained.forward(x), forward(SPEC, trained.weights, x), atol=1e-4)
    errors = np.abs(trained.forward(x) - (np.sin(x[:, 0]) + x[:, 1] * x[:, 4]))
    assert errors.mean() == pytest.approx(trained.history[-1]["validation_mae"], rel=0.2)
    assert trained.timings["total"] > trained.timings["training"] > 0


def test_both_frameworks_reach_the_same_losses(files):
    histories = [run(files, framework)[0].history for framework in FRAMEWORKS]
    for one, two in zip(*histories, strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-3)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_seed_decides_everything(files, framework):
    first, again, other = (run(files, framework, seed=seed)[0] for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


class Interrupt(Exception):
    pass


def after_two(history):
    return len(history) == 2


def after_the_best(history):
    return history[-1]["validation_loss"] > min(metrics["validation_loss"] for metrics in history)


INTERRUPTED = {
    "cosine": ({}, after_two, lambda history: True),
    # The third epoch has a lower rate only if it is remembered that the second one was no better.
    "cut": (
        {"schedule": "reduce_on_plateau", "patience": 1, "threshold": 0.99, "epochs": 4},
        after_two,
        lambda history: history[2]["learning_rate"] < 0.2 * history[1]["learning_rate"],
    ),
    "plateau": (
        {"schedule": "reduce_on_plateau", "patience": 2, "threshold": 0.99, "epochs": 5},
        after_two,
        lambda history: history[3]["learning_rate"] < 0.2 * history[2]["learning_rate"],
    ),
    "best": (
        {"schedule": "constant", "learning_rate": 0.05, "keep": "best", "early_stopping": 2, "epochs": 30},
        after_the_best,
        lambda history: len(history) < 30,
    ),
    "sgd": ({"optimizer": "sgd", "gradient_clip": 0.01, "weight_decay": 0.01}, after_two, lambda history: True),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", INTERRUPTED)
def test_an_interrupted_training_goes_on_bit_for_bit(files, tmp_path, framework, case):
    changes, when, shows = INTERRUPTED[case]
    settings = Training(**{**SETTINGS.model_dump(), **changes})
    whole, _ = run(files, framework, settings)
    assert shows(whole.history)
    history = []

    def interrupt(metrics, step):
        history.append(metrics)
        if when(history):
            raise Interrupt

    with pytest.raises(Interrupt):
        run(files, framework, settings, checkpoint=tmp_path / "c", on_epoch=interrupt)
    assert len(history) < len(whole.history)
    told = []
    resumed, lines = run(
        files, framework, settings, checkpoint=tmp_path / "c", on_epoch=lambda metrics, step: told.append(metrics)
    )
    assert resumed.resumed
    assert told == resumed.history  # those before the interruption too: it may not have been told of the last one
    assert resumed.timings["training"] == pytest.approx(sum(m["seconds"] for m in resumed.history), abs=0.01)
    assert lines[0].startswith("resuming from")
    assert same(whole, resumed)
    drop = {"seconds", "rows_per_second"}
    for one, two in zip([*whole.history, whole.kept], [*resumed.history, resumed.kept], strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {k: v for k, v in two.items() if k not in drop}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_interrupted_training_of_choice_probabilities_goes_on_bit_for_bit(tmp_path, framework):
    race = get_model("race_3")
    spec = make_spec(Network(name="cpn", network_type="cpn", hidden_layers=[16], activations=["tanh"]), race)
    rng = np.random.default_rng(3)
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for path in files:
        theta, labels = rng.normal(size=(3_000, len(race.params))), rng.dirichlet(np.ones(3), 3_000)
        write_shard(path, {"cpn_data": theta.astype(np.float32), "cpn_labels": labels.astype(np.float32)}, {})
    job = Job(spec, SETTINGS, framework, 1, files[1:], files[:1], "d", threads=2)

    def interrupt(metrics, step):
        raise Interrupt

    whole = train(job, None, lambda metrics, step: None, lambda line: None)
    with pytest.raises(Interrupt):
        train(job, tmp_path / "c", interrupt, lambda line: None)
    resumed = train(job, tmp_path / "c", lambda metrics, step: None, lambda line: None)
    assert resumed.resumed
    assert same(whole, resumed)


def test_checkpoints_of_another_training_are_not_picked_up(files, tmp_path):
    run(files, checkpoint=tmp_path / "c")
    fewer = Training(**{**SETTINGS.model_dump(), "epochs": 1})
    for changes in ({"seed": 2}, {"data_id": "e"}, {"settings": fewer}):
        trained, lines = run(files, checkpoint=tmp_path / "c", **changes)
        assert not trained.resumed
        assert "starting from scratch" in lines[0]
        assert same(trained, run(files, **changes)[0])


@pytest.mark.parametrize("name", ["training_code", "library_versions"])
def test_checkpoints_of_other_code_or_libraries_are_not_picked_up(files, tmp_path, monkeypatch, name):
    run(files, checkpoint=tmp_path / "c")
    monkeypatch.setattr(f"lanline.training.job.{name}", lambda *names: "another")
    assert not run(files, checkpoint=tmp_path / "c")[0].resumed


def test_the_number_of_threads_decides_on_a_cpu_only(files):
    def key(device, threads):
        return Job(SPEC, Training(device=device), "torch", 1, files[1:], files[:1], "d", threads).key()

    assert key("cpu", 1) != key("cpu", 2)
    assert key("gpu", 1) == key("gpu", 2)


def test_a_checkpoint_that_cannot_be_written_is_named_and_the_last_one_kept(files, tmp_path):
    run(files, checkpoint=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from lanline.training.checkpoint import write_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))  # as a disk that is full after that\n"
        "write_checkpoint(Path(sys.argv[1]), 'k', {'parameters': np.zeros(10_000, np.float32)}, {})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True)
    assert f"UserError: {tmp_path / 'c'} cannot be written" in done.stderr
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("empty", ["training", "validation"])
def test_files_without_rows_are_refused_by_name(tmp_path, empty):
    full, none = (write_files(tmp_path / name, [rows]) for name, rows in (("full", 500), ("none", 0)))
    files = none + full if empty == "validation" else full + none
    with pytest.raises(UserError, match=r"there are no rows in .*none/shard-0\.safetensors"):
        run(files)


def test_inputs_are_standardised_by_rows_of_all_files(tmp_path):
    """The first file may hold a single theta, or few."""
    files = write_files(tmp_path, [1_000, 10_000, 10_000])
    rows = np.full((10_000, 6), 1e-4, np.float32)
    rows[::2] = -1e-4
    write_shard(files[1], {"lan_data": rows, "lan_labels": rows[:, 0]}, {})
    trained, _ = run(files, settings=SETTINGS.model_copy(update={"epochs": 10}))
    assert trained.history[-1]["validation_mae"] < 0.2


def test_a_batch_may_be_larger_than_the_data(files):
    trained, _ = run(files, "jax", Training(epochs=1, batch_size=10**7))
    assert np.isfinite(trained.history[-1]["validation_mae"])


def test_a_broken_checkpoint_is_refused_by_name(files, tmp_path):
    (tmp_path / "c").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is not a checkpoint"):
        run(files, checkpoint=tmp_path / "c")


def test_early_stopping_and_the_best_epoch(files):
    """A rate that is far too high after one epoch: the last weights are worse than the best."""
    changes = {"epochs": 30, "schedule": "constant", "learning_rate": 0.05, "early_stopping": 2, "keep": "best"}
    stopped, lines = run(files, settings=Training(**{**SETTINGS.model_dump(), **changes}))
    losses = [metrics["validation_loss"] for metrics in stopped.history]
    assert len(losses) < 30
    assert min(losses) == losses[-3]
    assert lines[-1].startswith("stopped after epoch")
    x = stopped.sample
    mae = np.abs(stopped.forward(x) - (np.sin(x[:, 0]) + x[:, 1] * x[:, 4])).mean()
    assert mae == pytest.approx(stopped.history[-3]["validation_mae"], rel=0.2)
    assert stopped.kept == stopped.history[-3]


def test_a_diverging_training_stops_with_advice(files):
    with pytest.raises(UserError, match=r"epoch 1.*learning_rate"):
        run(files, settings=Training(optimizer="sgd", loss="mse", learning_rate=1e6, epochs=1, warmup_fraction=0.0))


GOES_ON = """
import json, sys
from lanline.config import Training
from lanline.errors import UserError
from lanline.networks.specification import NetworkSpec
from lanline.training.job import Job
from lanline.training.loop import train
spec, framework, files = json.loads(sys.argv[1])
settings = Training(optimizer="sgd", loss="mse", learning_rate=1e6, epochs=1, batch_size=500, warmup_fraction=0.0)
for seed in range(3):
    try:
        job = Job(NetworkSpec.from_json(spec), settings, framework, seed, files[1:], files[:1], "d", 2)
        train(job, None, lambda metrics, step: None, print)
    except UserError as error:
        print(error)
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_process_goes_on_after_a_training_that_ended_while_a_block_ran(tmp_path, framework):
    """Its message names the step whose loss it was, the second or a later one."""
    files = [str(path) for path in write_files(tmp_path, [1_000, 4 * BLOCK_ROWS])]
    values = json.dumps([SPEC.to_json(), framework, files])
    done = subprocess.run([sys.executable, "-c", GOES_ON, values], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"the loss became NaN or infinite in epoch 1, step (\d+):", done.stdout)
    assert len(steps) == 3
    assert all(1 < int(step) < 20 for step in steps)


def test_a_line_about_progress_counts_what_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("lanline.training.loop.SHOW_SECONDS", 0)
    files, lines = write_files(tmp_path, [1_000, 4 * BLOCK_ROWS]), []
    job = Job(SPEC, SETTINGS.model_copy(update={"epochs": 1}), "torch", 1, files[1:], files[:1], "d", threads=2)
    train(job, None, lambda metrics, step: None, lambda line: None, show=lines.append)
    assert [line.split()[2] for line in lines] == ["25%", "50%", "75%", "100%"]


def test_a_last_step_that_diverges_is_found_by_the_validation(tmp_path):
    paths = write_files(tmp_path, [100, 100])
    one_step = Training(optimizer="sgd", loss="mse", learning_rate=1e38, epochs=1, batch_size=100, warmup_fraction=0.0)
    with pytest.raises(UserError, match=r"validation loss is NaN or infinite after epoch 1.*learning_rate"):
        run(paths, settings=one_step)


SCRIPT = """
import json, sys
from pathlib import Path
from lanline.config import Training
from lanline.networks.specification import NetworkSpec
from lanline.training.job import Job
from lanline.training.loop import train
spec, settings, framework, files, checkpoint, out = json.loads(sys.argv[1])
job = Job(NetworkSpec.from_json(spec), Training(**settings), framework, 1, files[1:], files[:1], "d", 2)
trained = train(job, Path(checkpoint) if checkpoint else None, lambda metrics, step: None, print)
from safetensors.numpy import save_file
save_file(trained.weights, out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("buffer_gb", [1.0, 0.004])
def test_kill_9_at_any_moment_changes_nothing(tmp_path, framework, buffer_gb):
    """Also in the middle of an epoch, in memory and streaming; the final weights are the same bytes as those of a
    training that no checkpoint ever made wait for its blocks."""
    files = [str(path) for path in write_files(tmp_path, [1_000, 2 * BLOCK_ROWS, BLOCK_ROWS + 3_333])]

    def start(checkpoint, out):
        minutes = 1e-9 if checkpoint else 60
        settings = {"epochs": 4, "batch_size": 500, "checkpoint_minutes": minutes, "buffer_gb": buffer_gb}
        values = json.dumps([SPEC.to_json(), settings, framework, files, str(checkpoint or ""), str(tmp_path / out)])
        return subprocess.Popen([sys.executable, "-c", SCRIPT, values], stdout=subprocess.PIPE, text=True)

    assert start(None, "whole").wait() == 0
    checkpoint = tmp_path / "checkpoint"
    for kills in (2, 3):
        child = start(checkpoint, "killed")
        seen = set()
        while len(seen) < kills and child.poll() is None:
            if checkpoint.exists():
                seen.add(checkpoint.stat().st_mtime_ns)
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    last = start(checkpoint, "killed")
    assert "resuming from" in last.communicate()[0]
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
