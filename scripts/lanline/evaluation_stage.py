"""Evaluating networks and summing a run up: what the rules call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lanline.config import Config
from lanline.evaluation.error_map import error_figure, likelihood_errors
from lanline.evaluation.exported import open_network
from lanline.evaluation.gate import check_gate, evaluation_record
from lanline.evaluation.likelihood.figures import Curve, density_figure, training_figure
from lanline.evaluation.likelihood.metrics import Metrics, input_rows, judge
from lanline.evaluation.likelihood.reference import make_reference
from lanline.evaluation.probability.figures import agreement_figure, probability_errors
from lanline.evaluation.probability.metrics import ProbabilityMetrics, judge_probabilities
from lanline.evaluation.probability.reference import make_probability_reference
from lanline.evaluation.style import write_figure
from lanline.evaluation.summary import as_json, as_markdown, as_text, read_summaries
from lanline.files import write_config, write_json, write_text
from lanline.logs import say
from lanline.networks.artifacts import read_history
from lanline.networks.specification import make_spec
from lanline.paths import Paths
from lanline.sidecars import Run
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.mlflow.store import store_of

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
    metrics, figures = _judge(config, run, onnx, threads)
    verdict = check_gate(metrics, config.evaluation.gate)
    write_config(report / "config.yaml", config.model_dump(mode="json"))
    write_json(report / "metrics.json", evaluation_record(metrics, verdict))
    for name, figure in figures.items():
        write_figure(figure, report / "figures" / f"{name}.png")
    with amend_run(paths.training_report(run.name), store_of(config)) as tracked:
        tracked.log_metrics({f"evaluation.{name}": value for name, value in metrics.numbers().items()})
        tracked.set_tags({"gate": "passed" if verdict.passed else "failed", "reference": metrics.reference})
        tracked.log_artifact(report, "evaluation")
        if verdict.passed:
            numbers = {name: f"{value:.6g}" for name, value in metrics.numbers().items()}
            tags = {"dataset_id": run.dataset_id, "framework": run.framework, **numbers}
            tracked.register(f"{run.model}-{run.network_type}", "network", tags)
    say(f"{run.name}: MAE {metrics.mae:.4f} over {metrics.trials:,} trials\n{verdict}")


def _judge(
    config: Config, run: Run, onnx: Path, threads: int
) -> tuple[Metrics | ProbabilityMetrics, dict[str, Figure]]:
    """The numbers and the figures of one network."""
    model, spec = config.model(run.model), make_spec(config.network(run.network), config.model(run.model))
    if spec.gives_probabilities:
        reference = make_probability_reference(spec, model, config.data, config.evaluation)
        choice = np.resize(np.array(spec.choices), len(reference.theta))
        sample = np.column_stack([reference.theta, choice])[:COMPARED_ROWS, : len(spec.exported_inputs)]
        network = open_network(onnx, sample.astype(np.float32), threads)
        judged = judge_probabilities(network, reference, config.evaluation.min_log_density)
        return judged.metrics, {
            "agreement": agreement_figure(judged, run.name),
            "errors": error_figure(probability_errors(judged, run.name)),
        }
    likelihood = make_reference(model, config.data, config.evaluation)
    trials = likelihood.trials
    sample = input_rows(trials.theta, trials.rt, trials.choice)[:COMPARED_ROWS]
    judged = judge(open_network(onnx, sample, threads), likelihood)
    return judged.metrics, {
        "agreement": density_figure(judged, run.name),
        "errors": error_figure(likelihood_errors(judged, run.name)),
    }


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
        of_probabilities = config.network(network).network_type != "lan"
        figure = training_figure(together, f"{model}-{network}", of_probabilities)
        write_figure(figure, paths.training_curves(model, network))
