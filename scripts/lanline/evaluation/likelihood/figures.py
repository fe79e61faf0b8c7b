"""Densities of a network over the reference, and training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lanline.evaluation.likelihood.metrics import Judged
from lanline.evaluation.numbers import fixed
from lanline.evaluation.style import MUTED, STYLE, colour, headline, log_ticks, panels, reference_name, window

# Runs that agree lie on one another: the wide line stays visible under the narrow one.
FRAMEWORK_LINES: dict[str, dict[str, Any]] = {
    "torch": {"color": "#E69F00", "lw": 3.4, "marker": "o", "ms": 7.5},
    "jax": {"color": "#5B3A93", "lw": 1.3, "marker": "s", "ms": 3.5},
}
# Panels of the density figure: thetas by their rank in total variation distance.
RANKS = {
    0.0: "best",
    0.25: "25th percentile",
    0.5: "median",
    0.75: "75th percentile",
    0.95: "95th percentile",
    1.0: "worst",
}


@dataclass(frozen=True)
class Curve:
    """Training curves of one run: its framework, and one dictionary of numbers for each epoch (history.csv)."""

    framework: str
    epochs: list[dict[str, float]]


# --- densities ------------------------------------------------------------------------------------------------
def density_figure(judged: Judged, name: str) -> Figure:
    """The network's density over the reference, for thetas from the best to the worst of those that were judged.

    Args:
        judged: from `lanline.evaluation.likelihood.metrics.judge`.
        name: of the network, for the title.
    """
    metrics, choices = judged.metrics, judged.reference.curves.choices
    order = np.argsort(judged.total_variation)
    picked = {int(order[round(rank * (len(order) - 1))]): label for rank, label in RANKS.items()}
    columns = min(3, len(picked))
    rows = math.ceil(len(picked) / columns)
    with rc_context(STYLE):
        figure = panels(max(6.6, 3.3 * columns), 2.35 * rows + 1.1)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(picked) :]:
            axes.set_axis_off()
        for axes, (index, label) in zip(grid.flat, picked.items(), strict=False):
            _density_panel(axes, judged, index, label)
        for axes in grid[:, 0]:
            axes.set_ylabel("density (1/s)")
        for axes in grid.flat[max(0, len(picked) - columns) : len(picked)]:
            axes.set_xlabel("response time (s)")
        headline(
            figure,
            f"{name}: mean error {fixed(metrics.mae, 3)} nats over {metrics.trials:,} trials",
            f"{len(order)} random parameter vectors ranked by total variation distance (TV) from the "
            f"{reference_name(metrics.reference)}",
        )
        mirrored = len(choices) == 2
        handles: list[Artist] = [
            Patch(color=colour(c), label=f"choice {choice:+d}".replace("-", "−") if mirrored else f"choice {choice}")
            for c, choice in enumerate(choices)
        ]
        handles += [
            Patch(color="#cccccc", label=reference_name(metrics.reference)),
            Line2D([], [], color="black", lw=1.4, label="network"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _density_panel(axes: Axes, judged: Judged, index: int, label: str) -> None:
    curves = judged.reference.curves
    rt, reference, network = curves.rt[index], curves.density[index], judged.density[index]
    # Two choices are mirrored at the time axis, as the field draws them; more share one side.
    mirrored = len(reference) == 2
    for c in range(len(reference)):
        sign = -1 if mirrored and c == 0 else 1
        if mirrored:
            axes.fill_between(rt, sign * reference[c], color=colour(c), alpha=0.28, lw=0)
        else:
            axes.plot(rt, reference[c], color=colour(c), alpha=0.35, lw=5)
        axes.plot(rt, sign * network[c], color=colour(c), lw=1.4)
    if mirrored:
        axes.axhline(0, color="#888888", lw=0.8)
        axes.spines["bottom"].set_visible(False)
    axes.set_xlim(*window(rt, (reference + network).sum(axis=0)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    params = judged.reference.model.params
    pairs = [f"{param} {value:.2f}" for param, value in zip(params, curves.theta[index], strict=True)]
    lines = [",  ".join(pairs[i : i + 5]).replace("-", "−") for i in range(0, len(pairs), 5)]
    axes.set_title(f"{label}:  TV {fixed(judged.total_variation[index], 3)}" + "\n" * len(lines), fontweight="bold")
    axes.annotate(
        "\n".join(lines), (0, 1), (0, 4), "axes fraction", textcoords="offset points", color=MUTED, fontsize=8
    )


# --- training curves ----------------------------------------------------------------------------------------------


def training_figure(curves: Sequence[Curve], name: str, of_probabilities: bool = False) -> Figure:
    """Loss and validation error of one or more runs, by epoch and by time.

    Args:
        curves: one for each run; runs of one framework share its colour.
        name: what the runs have in common, e.g. model and network, for the title.
        of_probabilities: whether the errors are in probability, and not in log-likelihood.
    """
    unit, digits = ("probability", 4) if of_probabilities else ("nats", 3)
    if of_probabilities:
        explanation = "each validation row is a theta; the loss is the cross-entropy, which perfect networks have too"
    else:
        explanation = "all rows count here, also those at the floor; the evaluation counts simulated trials"
    frameworks = sorted({curve.framework for curve in curves}, reverse=True)
    with rc_context(STYLE):
        figure = panels(9.9, 3.7)
        by_epoch, error_by_epoch, error_by_time = figure.subplots(1, 3)
        for curve in sorted(curves, key=lambda curve: frameworks.index(curve.framework)):
            line = FRAMEWORK_LINES[curve.framework]
            column = {key: np.array([epoch[key] for epoch in curve.epochs]) for key in curve.epochs[0]}
            by_epoch.plot(column["epoch"], column["train_loss"], ls=":", **line)
            by_epoch.plot(column["epoch"], column["validation_loss"], **line)
            error_by_epoch.plot(column["epoch"], column["validation_mae"], **line)
            error_by_time.plot(np.cumsum(column["seconds"]), column["validation_mae"], **line)
        for axes, title, x_label in (
            (by_epoch, "loss", "epoch"),
            (error_by_epoch, f"mean |error| on validation rows ({unit})", "epoch"),
            (error_by_time, "the same, by time", "training time (s)"),
        ):
            axes.set_title(title)
            axes.set_xlabel(x_label)
            axes.set_yscale("log")
            log_ticks(axes.yaxis, (1, 2, 5) if axes is by_epoch else (1, 1.5, 2, 3, 5, 7))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=x_label == "epoch"))
        error_by_time.set_xlim(left=0)
        last = {
            f: min(curve.epochs[-1]["validation_mae"] for curve in curves if curve.framework == f) for f in frameworks
        }
        headline(
            figure,
            f"{name}: validation error {' and '.join(f'{fixed(last[f], digits)} ({f})' for f in frameworks)} {unit}",
            explanation,
        )
        handles = [Line2D([], [], label=framework, **FRAMEWORK_LINES[framework]) for framework in frameworks]
        handles += [
            Line2D([], [], color=MUTED, label="validation"),
            Line2D([], [], color=MUTED, ls=":", label="training"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
