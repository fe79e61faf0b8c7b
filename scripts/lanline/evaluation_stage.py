"""Evaluating networks and summing a run up: what the rules call."""

from __future__ import annotations

from pathlib import Path

import yaml

from lanline.config import Config
from lanline.data_stages import store_of
from lanline.evaluation.exported import open_network
from lanline.evaluation.figures import Curve, density_figure, error_figure, training_figure, write_figure
from lanline.evaluation.gate import check_gate, evaluation_record
from lanline.evaluation.metrics import input_rows, judge
from lanline.evaluation.reference import make_reference
from lanline.evaluation.summary import as_json, as_markdown, as_text, read_summaries
from lanline.files import write_json, write_text
from lanline.logs import say
from lanline.networks.artifacts import read_history
from lanline.paths import Paths
from lanline.sidecars import Run
from lanline.tracking.amend import amend_run
from lanline.tracking.store import redact

COMPARED_ROWS = 1000


def evaluate_network(config: Config, run: Run, onnx: Path, threads: int) -> None:
    """Judge an exported network; write its evaluation report and add it to the training's run.

    Args:
        config: the run's configuration.
        run: sidecar of the training.
        onnx: the network's file.
        threads: cores to use.
    """
    paths = Paths(config.name)
    report = paths.evaluation_report(run.name)
    reference = make_reference(config.model(run.model), config.data, config.evaluation)
    trials = reference.trials
    sample = input_rows(trials.theta, trials.rt, trials.choice)[:COMPARED_ROWS]
    judged = judge(open_network(onnx, sample, threads), reference)
    verdict = check_gate(judged.metrics, config.evaluation.gate)
    write_text(report / "config.yaml", redact(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)))
    write_json(report / "metrics.json", evaluation_record(judged.metrics, verdict))
    write_figure(density_figure(judged, run.name), report / "figures" / "densities.png")
    write_figure(error_figure(judged, run.name), report / "figures" / "errors.png")
    with amend_run(paths.training_report(run.name), store_of(config)) as tracked:
        tracked.log_metrics({f"evaluation.{name}": value for name, value in judged.metrics.numbers().items()})
        tracked.set_tags({"gate": "passed" if verdict.passed else "failed", "reference": judged.metrics.reference})
        tracked.log_artifact(report, "evaluation")
        if verdict.passed:
            tags = {"dataset_id": run.dataset_id, "mae": f"{judged.metrics.mae:.6g}", "framework": run.framework}
            tracked.register(f"{run.model}-{run.network_type}", "network", tags)
    say(f"{run.name}: MAE {judged.metrics.mae:.4f} over {judged.metrics.trials:,} trials\n{verdict}")


def write_report(config: Config, runs: list[Path], metrics: list[Path]) -> None:
    """Write the table of all networks, and a figure with the training curves of each specification.

    Args:
        config: the run's configuration.
        runs: run sidecars, each beside its network's files.
        metrics: metrics.json of each network's evaluation, in the same order.
    """
    paths = Paths(config.name)
    summaries = read_summaries(runs, metrics)
    write_text(paths.summary("txt"), as_text(summaries, paths.reports) + "\n")
    write_text(paths.summary("md"), as_markdown(summaries, paths.reports))
    write_json(paths.summary("json"), as_json(summaries))
    curves: dict[tuple[str, str], list[Curve]] = {}
    for path in runs:
        run = Run.read(path)
        curve = Curve(run.framework, read_history(path.with_name("history.csv")))
        curves.setdefault((run.model, run.network), []).append(curve)
    for (model, network), together in curves.items():
        write_figure(training_figure(together, f"{model}-{network}"), paths.training_curves(model, network))
