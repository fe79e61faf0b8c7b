"""Stage evaluate_network: an exported network against a reference density, and the gate's verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from lanline.config import Config
from lanline.evaluation.error_map import error_figure, likelihood_errors
from lanline.evaluation.exported import open_network
from lanline.evaluation.gate import Verdict, check_gate, evaluation_record
from lanline.evaluation.likelihood.figures import density_figure
from lanline.evaluation.likelihood.metrics import Metrics, input_rows, judge
from lanline.evaluation.likelihood.reference import make_reference
from lanline.evaluation.numbers import fixed
from lanline.evaluation.probability.figures import agreement_figure, probability_errors
from lanline.evaluation.probability.metrics import ProbabilityMetrics, judge_probabilities
from lanline.evaluation.probability.reference import make_probability_reference
from lanline.evaluation.style import write_figure
from lanline.files import write_config, write_json
from lanline.logs import note
from lanline.networks.specification import make_spec
from lanline.paths import Paths
from lanline.sidecars import TrainingSidecar
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.mlflow.store import store_of

COMPARED_ROWS = 1000  # rows at which a call with many trials must return the same as calls with one


@dataclass(frozen=True)
class EvaluationRequest:
    """Which network is evaluated.

    Attributes:
        config: the run's configuration.
        run: name of the training.
        paths: where the network and its sidecar lie, and the evaluation's report goes.
        threads: cores to use.
    """

    config: Config
    run: str
    paths: Paths
    threads: int


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation finds: numbers, and figures by name."""

    metrics: Metrics | ProbabilityMetrics
    figures: dict[str, Figure]


def evaluate_network(request: EvaluationRequest) -> None:
    """Judge an exported network; write its evaluation report and add it to the training's run.

    Raises:
        UserError: the network cannot be opened, or does not have the inputs of its specification.
    """
    run = TrainingSidecar.read(request.paths.run(request.run))
    evaluation = judge_network(request, run)
    verdict = check_gate(evaluation.metrics, request.config.evaluation.gate)
    _write_evaluation(request, evaluation, verdict)
    _add_to_run(request, run, evaluation.metrics, verdict)
    metrics = evaluation.metrics
    note(f"{run.name}: MAE {fixed(metrics.mae, 4)} over {metrics.trials:,} trials\n{verdict}")


def _write_evaluation(request: EvaluationRequest, evaluation: Evaluation, verdict: Verdict) -> None:
    report = request.paths.evaluation_report(request.run)
    write_config(report / "config.yaml", request.config.model_dump(mode="json"))
    write_json(report / "metrics.json", evaluation_record(evaluation.metrics, verdict))
    for name, figure in evaluation.figures.items():
        write_figure(figure, report / "figures" / f"{name}.png")


def _add_to_run(
    request: EvaluationRequest, run: TrainingSidecar, metrics: Metrics | ProbabilityMetrics, verdict: Verdict
) -> None:
    """Add the evaluation to the run of the training; a network that passes is registered."""
    numbers = metrics.numbers()
    with amend_run(request.paths.training_report(run.name), store_of(request.config), run.tracking_key) as tracked:
        tracked.log_metrics({f"evaluation.{name}": value for name, value in numbers.items()})
        tracked.set_tags({"gate": "passed" if verdict.passed else "failed", "reference": metrics.reference})
        tracked.log_artifact(request.paths.evaluation_report(run.name), "evaluation")
        if verdict.passed:
            texts = {name: f"{value:.6g}" for name, value in numbers.items()}
            tags = {"dataset_id": run.dataset_id, "framework": run.framework, **texts}
            tracked.register(f"{run.model}-{run.network_type}", "network", tags)


def judge_network(request: EvaluationRequest, run: TrainingSidecar) -> Evaluation:
    """The numbers and the figures of one network. Raises as `evaluate_network` does."""
    config, onnx = request.config, request.paths.onnx(run.name)
    model, spec = config.model(run.model), make_spec(config.network(run.network), config.model(run.model))
    if spec.gives_probabilities:
        reference = make_probability_reference(spec, model, config.data, config.evaluation)
        choice = np.resize(np.array(spec.choices), len(reference.theta))
        sample = np.column_stack([reference.theta, choice])[:COMPARED_ROWS, : len(spec.exported_inputs)]
        network = open_network(onnx, sample.astype(np.float32), request.threads)
        judged = judge_probabilities(network, reference, config.evaluation.min_log_density)
        agreement, errors = agreement_figure(judged, run.name), error_figure(probability_errors(judged, run.name))
        return Evaluation(judged.metrics, {"agreement": agreement, "errors": errors})
    likelihood = make_reference(model, config.data, config.evaluation)
    trials = likelihood.trials
    rows = input_rows(trials.theta, trials.rt, trials.choice)[:COMPARED_ROWS]
    judged_lan = judge(open_network(onnx, rows, request.threads), likelihood)
    agreement, errors = density_figure(judged_lan, run.name), error_figure(likelihood_errors(judged_lan, run.name))
    return Evaluation(judged_lan.metrics, {"agreement": agreement, "errors": errors})
