"""A run in a few lines: which networks there are, how good they are, and how to see more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from lanline.errors import UserError
from lanline.evaluation.numbers import fixed
from lanline.networks.artifacts import read_history
from lanline.sidecars import TrainingSidecar


@dataclass(frozen=True)
class NetworkSummary:
    """One network of a run.

    Attributes:
        name: of the training run.
        framework: torch or jax.
        mae: mean absolute error in log-likelihood, or in the log-probability of what happened, nats.
        abs_error_p99: 99 % quantile of the same.
        mass: 5 % and 95 % quantile of the total probability over thetas; None where it is 1 by construction.
        reference: what the errors are from: exact or simulation.
        passed: whether it passed the gate.
        failed: metrics of the gate's criteria that it does not keep.
        training_seconds: time of its training steps.
        onnx: the file that HSSM loads.
        run_id: its MLflow run, or None.
    """

    name: str
    framework: str
    mae: float
    abs_error_p99: float
    mass: tuple[float, float] | None
    reference: str
    passed: bool
    failed: tuple[str, ...]
    training_seconds: float
    onnx: str
    run_id: str | None

    @property
    def verdict(self) -> str:
        return "passed" if self.passed else f"FAILED: {', '.join(self.failed)}"


COLUMNS = ("network", "framework", "MAE", "p99", "mass 5-95 %", "gate", "training", "file")
HTML_COLUMNS = (0, 2, 3, 4, 5)  # half a page wide
HTML_STYLE = "padding: 2px 10px 2px 0; text-align: left"


def read_summaries(runs: Sequence[Path], metrics: Sequence[Path]) -> list[NetworkSummary]:
    """Summaries of the networks of a run, the best first within each model.

    Args:
        runs: run sidecars, each in its network's folder beside model.onnx and history.csv.
        metrics: metrics.json of each network's evaluation, in the same order.

    Raises:
        UserError: a file is missing, or is not what it should be.
    """
    found = []
    for run_path, metrics_path in zip(runs, metrics, strict=True):
        run = TrainingSidecar.read(run_path)
        values = _read_metrics(metrics_path)
        failed = tuple(c["metric"] for c in values["gate"]["criteria"] if not c["passed"])
        summary = NetworkSummary(
            name=run.name,
            framework=run.framework,
            mae=values["mae"],
            abs_error_p99=values["abs_error_p99"],
            mass=(values["mass_q05"], values["mass_q95"]) if "mass_q05" in values else None,
            reference=values["reference"],
            passed=values["gate"]["passed"],
            failed=failed,
            training_seconds=sum(epoch["seconds"] for epoch in read_history(run_path.with_name("history.csv"))),
            onnx=run_path.with_name("model.onnx").as_posix(),
            run_id=run.run_id,
        )
        found.append((run.model, summary.mae, summary))
    return [summary for *_, summary in sorted(found, key=lambda entry: entry[:2])]


def as_text(summaries: Sequence[NetworkSummary], report: Path) -> str:
    """For the terminal: an aligned table and what to do next.

    Args:
        summaries: from `read_summaries`.
        report: folder with the run's metrics and figures.
    """
    # Paths are long: below the table, so that it fits a terminal.
    rows = [row[:-1] for row in (COLUMNS, *(_cells(summary) for summary in summaries))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    rule = "-" * max(map(len, lines))
    files = [f"  {summary.onnx}{'' if summary.passed else '  (FAILED its gate)'}" for summary in summaries]
    steps = _next_steps(summaries, report)
    return "\n".join([lines[0], rule, *lines[1:], rule, "networks, as HSSM loads them:", *files, *steps])


def as_markdown(summaries: Sequence[NetworkSummary], report: Path) -> str:
    """The same as a Markdown page, the networks that failed their gate in bold."""
    rows = [[cell if summary.passed else f"**{cell}**" for cell in _cells(summary)] for summary in summaries]
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, *rows)]
    rule = "|" + " --- |" * len(COLUMNS)
    steps = [f"- {step}" for step in _next_steps(summaries, report)]
    return "\n".join(["# Networks", "", lines[0], rule, *lines[1:], "", *steps, ""])


def as_html(summaries: Sequence[NetworkSummary]) -> str:
    """The table for the HTML report, which shows it on its first page and as a separate result."""
    head = "".join(f'<th style="{HTML_STYLE}">{escape(COLUMNS[column])}</th>' for column in HTML_COLUMNS)
    lines = []
    for summary in summaries:
        colour = "" if summary.passed else "; color: #b00020"
        row = _cells(summary)
        cells = [f'<td style="{HTML_STYLE}{colour}">{escape(row[column])}</td>' for column in HTML_COLUMNS]
        lines.append(f'<tr title="{escape(summary.onnx)}">{"".join(cells)}</tr>')
    style = "font: 13px sans-serif; border-collapse: collapse; margin: 1em 0"
    return "\n".join([f'<table style="{style}">', f"<tr>{head}</tr>", *lines, "</table>", ""])


def as_json(summaries: Sequence[NetworkSummary]) -> dict[str, Any]:
    """The same as plain JSON."""
    return {"passed": all(s.passed for s in summaries), "networks": [asdict(summary) for summary in summaries]}


def _cells(summary: NetworkSummary) -> tuple[str, ...]:
    return (
        summary.name,
        summary.framework,
        fixed(summary.mae, 4),
        fixed(summary.abs_error_p99, 3),
        "{:.3f}-{:.3f}".format(*summary.mass) if summary.mass else "",
        summary.verdict,
        f"{summary.training_seconds:.0f} s",
        summary.onnx,
    )


def _next_steps(summaries: Sequence[NetworkSummary], report: Path) -> list[str]:
    kinds = " and ".join(sorted({summary.reference for summary in summaries}))
    steps = [f"MAE and p99: absolute error in log-likelihood or log-probability (nats), reference: {kinds}"]
    steps.append(f"metrics and figures: {report.as_posix()}/ (all on one page: make report)")
    if any(summary.run_id for summary in summaries):
        steps.append("runs in MLflow: make mlflow-ui")
    return steps


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
