"""BaseExperiment as a user subclasses it, with tracking off."""

import json
import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from lanline.errors import UserError
from lanline.experiment import BaseExperiment, flatten
from lanline.tracking.journal.events import journals, read_events


class LineFit(BaseExperiment):
    """Fits a slope by least squares, in steps."""

    def prepare_data(self):
        x = np.random.normal(size=100)
        return x, 3.0 * x

    def build_model(self):
        return {"slope": 0.0}

    def train(self, model, data):
        x, y = data
        for epoch in range(1, self.config.epochs + 1):
            error = model["slope"] * x - y
            model["slope"] -= 0.5 * float(np.mean(error * x))
            self.log_metrics({"loss": float(np.mean(error**2))}, epoch)

    def evaluate(self, model, data):
        if self.config.epochs > 50:
            raise RuntimeError("too many")
        figure = Figure()
        figure.subplots().plot(*data, ".")
        self.save_figure(figure, "fit")
        return {"slope": np.float64(model["slope"])}


def events_of(experiment: BaseExperiment) -> list[dict]:
    return [event.model_dump() for event, _ in read_events(journals(experiment.report_folder)[-1])]


def test_evaluate_alone_makes_an_experiment(tmp_path):
    class Known(BaseExperiment):
        def evaluate(self, model, data):
            return {"answer": 42}

    assert Known({"name": "known"}, module_dir=tmp_path).run() == {"answer": 42.0}


def test_a_run_leaves_its_report(tmp_path):
    experiment = LineFit({"name": "line", "seed": 42, "epochs": 20}, module_dir=tmp_path)
    metrics = experiment.run()
    assert metrics["slope"] == pytest.approx(3, abs=1e-3)
    folder = tmp_path / "reports" / "line"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert yaml.safe_load((folder / "config.yaml").read_text())["epochs"] == 20
    assert (folder / "figures" / "fit.png").read_bytes().startswith(b"\x89PNG")
    kinds = [event["event"] for event in events_of(experiment)]
    assert kinds.count("metrics") == 21
    assert [e["path"].rsplit("/", 1)[-1] for e in events_of(experiment) if e["event"] == "artifact"] == [
        "config.yaml",
        "metrics.json",
        "fit.png",
    ]
    assert kinds[-1] == "end"


def test_the_seed_makes_runs_repeatable(tmp_path):
    losses = []
    for seed in (1, 1, 2):
        experiment = LineFit({"name": "line", "seed": seed, "epochs": 2}, module_dir=tmp_path)
        experiment.run()
        losses.append([event["metrics"] for event in events_of(experiment) if event["event"] == "metrics"])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    random.seed()


def test_a_failure_is_recorded_and_raised(tmp_path):
    LineFit({"name": "line", "epochs": 2}, module_dir=tmp_path).run()
    failing = LineFit({"name": "line", "epochs": 60}, module_dir=tmp_path)
    with pytest.raises(RuntimeError, match="too many"):
        failing.run()
    end = events_of(failing)[-1]
    assert (end["status"], end["reason"]) == ("FAILED", "RuntimeError: too many")
    # Neither the metrics nor the figure of the run before may pass for this run's.
    assert not (failing.report_folder / "metrics.json").exists()
    assert "fit.png" not in json.dumps(events_of(failing))


@dataclass(frozen=True)
class Settings:
    name: str
    epochs: int = 2
    seed: int = 1
    mlflow_tracking: bool = False
    mlflow_experiment_name: str | None = None


def test_a_config_may_be_a_file_a_dict_or_an_object(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("name: line\nseed: 1\nepochs: 2\n")
    settings = Settings("line")
    for config in (
        path,
        str(path),
        {"name": "line", "seed": 1, "epochs": 2},
        settings,
        SimpleNamespace(**vars(settings)),
    ):
        experiment = LineFit(config, module_dir=tmp_path)
        assert experiment.run()["slope"] > 0
        assert experiment.experiment_name == "line"
        assert experiment.config_values()["epochs"] == 2


def test_the_environment_names_the_experiment_where_the_config_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from-environment")
    assert LineFit(Settings("line"), module_dir=tmp_path).experiment_name == "from-environment"
    named = Settings("line", mlflow_experiment_name="from-config")
    assert LineFit(named, module_dir=tmp_path).experiment_name == "from-config"


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed: 1", "name missing"), ("- a", "expected keys"), ("a: [", "not valid YAML")],
)
def test_a_config_that_cannot_be_used_is_named(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        LineFit(path)
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        LineFit("nowhere.yaml")


def test_credentials_in_a_config_stay_out_of_the_report(tmp_path):
    config = {"name": "line", "epochs": 2, "tracking": {"uri": "http://ann:s3cret@host"}}
    experiment = LineFit(config, module_dir=tmp_path)
    experiment.run()
    for path in experiment.report_folder.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes()


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": "[1, 2]", "e": None}
