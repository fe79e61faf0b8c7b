"""What an evaluation adds to the record of its training."""

from lanline.config import parse_config
from lanline.evaluation.likelihood.metrics import Metrics
from lanline.paths import Paths
from lanline.sidecars import TrainingSidecar
from lanline.stages.evaluate_network import Evaluation, EvaluationRequest, evaluate_network
from lanline.tracking.journal.events import journals, read_events
from lanline.tracking.journal.opening import open_run


def test_a_network_that_passes_is_registered_with_all_of_its_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(
        {"name": "x", "models": ["ddm"], "mlflow_tracking": False, "evaluation": {"gate": {"max_mae": 1}}}
    )
    fields = [name for name in Metrics.__dataclass_fields__ if name != "reference"]
    metrics = Metrics(reference="exact", **dict.fromkeys(fields, 0.987654321))
    monkeypatch.setattr("lanline.stages.evaluate_network.judge_network", lambda *_: Evaluation(metrics, {}))
    sidecar = dict.fromkeys(TrainingSidecar.model_fields) | {"schema_version": 1, "seed": 1, "network_type": "lan"}
    names = ("name", "model", "network", "framework", "dataset_id", "lineage_id", "experiment_name")
    run = TrainingSidecar(**sidecar | {name: f"its {name}" for name in names})
    report = Paths("x").training_report(run.name)
    with open_run(report, "n", "e"):
        pass
    run.write(Paths("x").run(run.name))
    evaluate_network(EvaluationRequest(config, run.name, Paths("x"), 1))
    [registered] = [event.model_dump() for event, _ in read_events(journals(report)[-1]) if event.event == "register"]
    of_run = {"dataset_id": "its dataset_id", "framework": "its framework"}
    assert registered["tags"] == {**of_run, **dict.fromkeys(fields, "0.987654")}
