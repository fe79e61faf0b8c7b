"""Figures of an evaluation and of trainings, for reports and papers.

Drawn with matplotlib's object-oriented interface: no window, no shared state. A colour means the same in every
figure and all can be told apart with any colour vision (Okabe & Ito 2008; viridis for maps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from lanline.evaluation.metrics import Judged
from lanline.files import atomic_path

CHOICE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
# Runs that agree lie on one another: the wide line stays visible under the narrow one.
FRAMEWORK_LINES = {
    "torch": {"color": "#E69F00", "lw": 3.4, "marker": "o", "ms": 7.5},
    "jax": {"color": "#5B3A93", "lw": 1.3, "marker": "s", "ms": 3.5},
}
ERROR_COLOUR = "#222222"
MUTED = "#666666"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "figure.dpi": 200,
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
HEAD = 0.55  # inches for the title and its explanation
FEWEST_TRIALS = 20  # in a bin that quantiles are drawn for


@dataclass(frozen=True)
class Curve:
    """Training curves of one run: its framework, and one dictionary of numbers for each epoch (history.csv)."""

    framework: str
    epochs: list[dict[str, float]]


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix of ``path`` (png, svg, pdf) says in which format."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


# --- densities ------------------------------------------------------------------------------------------------
def density_figure(judged: Judged, name: str) -> Figure:
    """The network's density over the reference, for thetas from the best to the worst of those that were judged.

    Args:
        judged: from `lanline.evaluation.metrics.judge`.
        name: of the network, for the title.
    """
    metrics, choices = judged.metrics, judged.reference.curves.choices
    order = np.argsort(judged.total_variation)
    picked = {int(order[round(rank * (len(order) - 1))]): label for rank, label in RANKS.items()}
    columns = min(3, len(picked))
    rows = math.ceil(len(picked) / columns)
    with rc_context(STYLE):
        figure = _panels(max(6.6, 3.3 * columns), 2.35 * rows + 1.1)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(picked) :]:
            axes.set_axis_off()
        for axes, (index, label) in zip(grid.flat, picked.items(), strict=False):
            _density_panel(axes, judged, index, label)
        for axes in grid[:, 0]:
            axes.set_ylabel("density (1/s)")
        for axes in grid.flat[max(0, len(picked) - columns) : len(picked)]:
            axes.set_xlabel("response time (s)")
        _title(
            figure,
            f"{name}: mean error {metrics.mae:.3f} nats over {metrics.trials:,} trials",
            f"{len(order)} random parameter vectors ranked by total variation distance (TV) from the "
            f"{_reference(judged)}",
        )
        mirrored = len(choices) == 2
        handles = [
            Patch(color=_colour(c), label=f"choice {choice:+d}".replace("-", "−") if mirrored else f"choice {choice}")
            for c, choice in enumerate(choices)
        ]
        handles += [
            Patch(color="#cccccc", label=_reference(judged)),
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
            axes.fill_between(rt, sign * reference[c], color=_colour(c), alpha=0.28, lw=0)
        else:
            axes.plot(rt, reference[c], color=_colour(c), alpha=0.35, lw=5)
        axes.plot(rt, sign * network[c], color=_colour(c), lw=1.4)
    if mirrored:
        axes.axhline(0, color="#888888", lw=0.8)
        axes.spines["bottom"].set_visible(False)
    axes.set_xlim(*_window(rt, (reference + network).sum(axis=0)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    params = judged.reference.model.params
    pairs = [f"{param} {value:.2f}" for param, value in zip(params, curves.theta[index], strict=True)]
    lines = [",  ".join(pairs[i : i + 5]).replace("-", "−") for i in range(0, len(pairs), 5)]
    axes.set_title(f"{label}:  TV {judged.total_variation[index]:.3f}" + "\n" * len(lines), fontweight="bold")
    axes.annotate(
        "\n".join(lines), (0, 1), (0, 4), "axes fraction", textcoords="offset points", color=MUTED, fontsize=8
    )


def _window(rt: np.ndarray, density: np.ndarray) -> tuple[float, float]:
    """The response times that hold nearly all of a density, with some room on both sides."""
    cumulative = np.concatenate([[0.0], np.cumsum(np.diff(rt) * (density[1:] + density[:-1]) / 2)])
    if cumulative[-1] == 0:
        return float(rt[0]), float(rt[-1])
    first, last = np.interp([0.002, 0.985], cumulative / cumulative[-1], rt)
    return max(0.0, first - 0.12 * (last - first)), last + 0.03 * (last - first)


# --- error over the parameter space -----------------------------------------------------------------------------
def error_figure(judged: Judged, name: str) -> Figure:
    """Where in the parameter space the errors are: by parameter, by pair of parameters, and by log-density.

    Args:
        judged: from `lanline.evaluation.metrics.judge`.
        name: of the network, for the title.
    """
    trials, params = judged.reference.trials, judged.reference.model.params
    theta, error = trials.theta, np.abs(judged.error)
    n_bins = int(np.clip(np.sqrt(len(np.unique(trials.cluster)) / 10), 4, 16))
    edges = [np.linspace(low, high, n_bins + 1) for low, high in zip(theta.min(0), theta.max(0), strict=True)]
    size = max(3, len(params))
    width, height = 1.9 * size + 1.3, 1.6 * size + 1.3
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        grid = figure.add_gridspec(
            size, size, left=0.6 / width, right=1 - 0.7 / width, bottom=0.5 / height, top=1 - (HEAD + 0.1) / height
        )
        diagonal = None
        for i in range(len(params)):
            axes = diagonal = figure.add_subplot(grid[i, i], sharey=diagonal)
            _band(axes, theta[:, i], error, edges[i])
            axes.yaxis.tick_right()
            axes.yaxis.set_label_position("right")
            axes.spines["left"].set_visible(False)
            axes.spines["right"].set_visible(True)
            _label_corner(axes, params, i, i)
        cells = {
            (row, column): _cell_means(theta[:, column], theta[:, row], error, edges[column], edges[row])
            for row in range(len(params))
            for column in range(row)
        }
        norm = LogNorm(*np.nanquantile(np.stack([*cells.values()]), [0.01, 0.99]))
        for (row, column), means in cells.items():
            axes = figure.add_subplot(grid[row, column])
            mesh = axes.pcolormesh(edges[column], edges[row], means.T, cmap="viridis", norm=norm)
            axes.spines[:].set_visible(False)
            _label_corner(axes, params, row, column)
        bar_axes = _inset(figure, grid[size - 2, size - 1], (0.42, 0.55, 0.58, 0.1))
        bar = figure.colorbar(mesh, cax=bar_axes, orientation="horizontal", label="mean |error| (nats)")
        bar.outline.set_visible(False)
        bar.set_ticks(np.geomspace(norm.vmin, norm.vmax, 3))
        bar_axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
        bar_axes.xaxis.set_minor_locator(NullLocator())
        half = size // 2
        axes = _inset(figure, grid[:half, size - half :], (0.25, 0.12, 0.75, 0.88))
        _band(axes, trials.log_density, error, np.linspace(*np.quantile(trials.log_density, [0, 1]), 25))
        axes.set_xlabel(f"log-density, {judged.metrics.reference} (nats)")
        axes.set_ylabel("|error| (nats)")
        if axes.lines:
            axes.legend()
        _title(
            figure,
            f"{name}: 99 % of {judged.metrics.trials:,} trials within {judged.metrics.abs_error_p99:.2f} nats",
            f"error: log-likelihood of the network minus the {_reference(judged)}, over the parameter space",
        )
    return figure


def _band(axes: Axes, x: np.ndarray, error: np.ndarray, edges: np.ndarray) -> None:
    """Median and central 90 % of the error in bins of x that hold enough trials."""
    index = np.clip(np.digitize(x, edges) - 1, 0, len(edges) - 2)
    bins = [(i, error[index == i]) for i in range(len(edges) - 1)]
    filled = [(i, values) for i, values in bins if len(values) >= FEWEST_TRIALS]
    axes.set_yscale("log")
    _log_ticks(axes.yaxis, (1,))
    if not filled:
        return
    centre = [(edges[i] + edges[i + 1]) / 2 for i, _ in filled]
    low, median, high = np.array([np.quantile(values, [0.05, 0.5, 0.95]) for _, values in filled]).T
    axes.fill_between(centre, low, high, color=ERROR_COLOUR, alpha=0.16, lw=0, label="90 % of trials")
    axes.plot(centre, median, color=ERROR_COLOUR, lw=1.5, label="median")
    axes.set_xlim(edges[filled[0][0]], edges[filled[-1][0] + 1])


def _inset(figure: Figure, cell: SubplotSpec, place: tuple[float, float, float, float]) -> Axes:
    """Axes in a part (left, bottom, width, height) of a cell of a grid."""
    host = figure.add_subplot(cell)
    host.set_axis_off()
    return host.inset_axes(place)


def _cell_means(
    x: np.ndarray, y: np.ndarray, error: np.ndarray, x_edges: np.ndarray, y_edges: np.ndarray
) -> np.ndarray:
    """Mean error in the cells of a grid; nan where a cell is empty."""
    total, _, _ = np.histogram2d(x, y, (x_edges, y_edges), weights=error)
    count, _, _ = np.histogram2d(x, y, (x_edges, y_edges))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _label_corner(axes: Axes, params: Sequence[str], row: int, column: int) -> None:
    """Labels where a triangle of panels has its outer sides."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if row == len(params) - 1:
        axes.set_xlabel(params[column], fontweight="bold")
    else:
        axes.tick_params(labelbottom=False)
    if row == column:
        axes.set_ylabel("|error| (nats)")
        return
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if column == 0:
        axes.set_ylabel(params[row], fontweight="bold")
    else:
        axes.tick_params(labelleft=False)


# --- training curves ----------------------------------------------------------------------------------------------
def training_figure(curves: Sequence[Curve], name: str) -> Figure:
    """Loss and validation error of one or more runs, by epoch and by time.

    Args:
        curves: one for each run; runs of one framework share its colour.
        name: what the runs have in common, e.g. model and network, for the title.
    """
    frameworks = sorted({curve.framework for curve in curves}, reverse=True)
    with rc_context(STYLE):
        figure = _panels(9.9, 3.7)
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
            (error_by_epoch, "mean |error| on validation rows (nats)", "epoch"),
            (error_by_time, "the same, by time", "training time (s)"),
        ):
            axes.set_title(title)
            axes.set_xlabel(x_label)
            axes.set_yscale("log")
            _log_ticks(axes.yaxis, (1, 2, 5) if axes is by_epoch else (1, 1.5, 2, 3, 5, 7))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=x_label == "epoch"))
        error_by_time.set_xlim(left=0)
        last = {
            f: min(curve.epochs[-1]["validation_mae"] for curve in curves if curve.framework == f) for f in frameworks
        }
        _title(
            figure,
            f"{name}: validation error {' and '.join(f'{last[f]:.3f} ({f})' for f in frameworks)} nats",
            "rows of all kinds count here, those at the floor too; the evaluation counts simulated trials",
        )
        handles = [Line2D([], [], label=framework, **FRAMEWORK_LINES[framework]) for framework in frameworks]
        handles += [
            Line2D([], [], color=MUTED, label="validation"),
            Line2D([], [], color=MUTED, ls=":", label="training"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


# --- shared -------------------------------------------------------------------------------------------------------
def _panels(width: float, height: float) -> Figure:
    """A figure that arranges its panels below the room for the title; sizes in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - HEAD / height)))


def _title(figure: Figure, takeaway: str, explanation: str) -> None:
    """One line that says what is seen, and a smaller one that says what is drawn."""
    point = 1 / 72 / figure.get_figheight()
    figure.text(0.01, 1 - 5 * point, takeaway, ha="left", va="top", fontsize=12, fontweight="bold")
    figure.text(0.01, 1 - 23 * point, explanation, ha="left", va="top", color=MUTED)


def _log_ticks(axis: Axis, subs: tuple[float, ...]) -> None:
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _colour(choice_index: int) -> str:
    return CHOICE_COLOURS[choice_index % len(CHOICE_COLOURS)]


def _reference(judged: Judged) -> str:
    return "exact density" if judged.metrics.reference == "exact" else "simulated density"
