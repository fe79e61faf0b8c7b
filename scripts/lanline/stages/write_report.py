"""Stage write_report: a table of all networks, and their training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lanline.config import Config
from lanline.evaluation.likelihood.figures import Curve, training_figure
from lanline.evaluation.style import write_figure
from lanline.evaluation.summary import as_html, as_json, as_markdown, as_text, read_summaries
from lanline.files import write_json, write_text
from lanline.networks.artifacts import read_history
from lanline.paths import Paths
from lanline.sidecars import TrainingSidecar


@dataclass(frozen=True)
class ReportRequest:
    """Which networks are summed up.

    Attributes:
        config: the run's configuration.
        paths: where the report goes.
        runs: sidecars of the trainings, each beside its network's files.
        metrics: metrics.json of each network's evaluation, in the same order.
    """

    config: Config
    paths: Paths
    runs: Sequence[Path]
    metrics: Sequence[Path]


def write_report(request: ReportRequest) -> None:
    """Write the table of all networks, and a figure with the training curves of each specification."""
    paths = request.paths
    summaries = read_summaries(list(request.runs), list(request.metrics))
    write_text(paths.summary("txt"), as_text(summaries, paths.reports) + "\n")
    write_text(paths.summary("md"), as_markdown(summaries, paths.reports))
    write_text(paths.summary("html"), as_html(summaries))
    write_json(paths.summary("json"), as_json(summaries))
    curves: dict[tuple[str, str], list[Curve]] = {}
    for path in request.runs:
        run = TrainingSidecar.read(path)
        curve = Curve(run.framework, read_history(path.with_name("history.csv")))
        curves.setdefault((run.model, run.network), []).append(curve)
    for (model, network), together in curves.items():
        of_probabilities = request.config.network(network).network_type != "lan"
        figure = training_figure(together, f"{model}-{network}", of_probabilities)
        write_figure(figure, paths.training_curves(model, network))
