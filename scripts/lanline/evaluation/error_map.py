"""Where in the parameter space the errors of a network are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from lanline.evaluation.likelihood.metrics import Judged
from lanline.evaluation.numbers import fixed
from lanline.evaluation.style import ERROR_COLOUR, HEAD, STYLE, headline, log_ticks, reference_name

FEWEST_TRIALS = 20  # in a bin that quantiles are drawn for
SMALLEST = 1e-7  # errors are drawn on a logarithmic scale


@dataclass(frozen=True)
class ErrorMap:
    """Errors of a network at N points of the parameter space.

    Attributes:
        params: names of the parameters.
        theta: (N, P) parameters.
        thetas: how many of them differ.
        error: (N,) absolute errors.
        unit: of the errors.
        value: (N,) the reference's own value, which the errors are shown by too.
        value_name: its name and unit.
        takeaway: title of the figure.
        explanation: what the errors are.
    """

    params: Sequence[str]
    theta: np.ndarray
    thetas: int
    error: np.ndarray
    unit: str
    value: np.ndarray
    value_name: str
    takeaway: str
    explanation: str


def likelihood_errors(judged: Judged, name: str) -> ErrorMap:
    """Errors in log-likelihood at simulated trials, from `lanline.evaluation.likelihood.metrics.judge`."""
    trials, metrics = judged.reference.trials, judged.metrics
    return ErrorMap(
        params=judged.reference.model.params,
        theta=trials.theta,
        thetas=len(np.unique(trials.cluster)),
        error=np.abs(judged.error),
        unit="nats",
        value=trials.log_density,
        value_name=f"log-density, {metrics.reference} (nats)",
        takeaway=f"{name}: 99 % of {metrics.trials:,} trials within {fixed(metrics.abs_error_p99, 2)} nats",
        explanation=f"error: log-likelihood of the network minus the {reference_name(metrics.reference)}, over the "
        "parameter space",
    )


def error_figure(errors: ErrorMap) -> Figure:
    """Errors by parameter, by pair of parameters, and by the reference's value."""
    params, theta, error = errors.params, errors.theta, np.maximum(errors.error, SMALLEST)
    n_bins = int(np.clip(np.sqrt(errors.thetas / 10), 4, 16))
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
            _label_corner(axes, params, i, i, errors.unit)
        cells = {
            (row, column): _cell_means(theta[:, column], theta[:, row], error, edges[column], edges[row])
            for row in range(len(params))
            for column in range(row)
        }
        least, most = (float(value) for value in np.nanquantile(np.stack([*cells.values()]), [0.01, 0.99]))
        norm = LogNorm(least, most)
        for (row, column), means in cells.items():
            axes = figure.add_subplot(grid[row, column])
            mesh = axes.pcolormesh(edges[column], edges[row], means.T, cmap="viridis", norm=norm)
            axes.spines[:].set_visible(False)
            _label_corner(axes, params, row, column, errors.unit)
        bar_axes = _inset(figure, grid[size - 2, size - 1], (0.42, 0.55, 0.58, 0.1))
        bar = figure.colorbar(mesh, cax=bar_axes, orientation="horizontal", label=f"mean |error| ({errors.unit})")
        bar.outline.set_visible(False)
        bar.set_ticks([least, most])
        bar_axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
        bar_axes.xaxis.set_minor_locator(NullLocator())
        half = size // 2
        axes = _inset(figure, grid[:half, size - half :], (0.25, 0.12, 0.75, 0.88))
        _band(axes, errors.value, error, np.linspace(errors.value.min(), errors.value.max(), 25))
        axes.set_xlabel(errors.value_name)
        axes.set_ylabel(f"|error| ({errors.unit})")
        if axes.lines:
            axes.legend()
        headline(figure, errors.takeaway, errors.explanation)
    return figure


def _band(axes: Axes, x: np.ndarray, error: np.ndarray, edges: np.ndarray) -> None:
    """Median and central 90 % of the error in bins of x that hold enough trials."""
    index = np.clip(np.digitize(x, edges) - 1, 0, len(edges) - 2)
    bins = [(i, error[index == i]) for i in range(len(edges) - 1)]
    filled = [(i, values) for i, values in bins if len(values) >= FEWEST_TRIALS]
    axes.set_yscale("log")
    log_ticks(axes.yaxis, (1,))
    if not filled:
        return
    centre = [(edges[i] + edges[i + 1]) / 2 for i, _ in filled]
    low, median, high = np.array([np.quantile(values, [0.05, 0.5, 0.95]) for _, values in filled]).T
    axes.fill_between(centre, low, high, color=ERROR_COLOUR, alpha=0.16, lw=0, label="central 90 %")
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


def _label_corner(axes: Axes, params: Sequence[str], row: int, column: int, unit: str) -> None:
    """Labels where a triangle of panels has its outer sides."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if row == len(params) - 1:
        axes.set_xlabel(params[column], fontweight="bold")
    else:
        axes.tick_params(labelbottom=False)
    if row == column:
        axes.set_ylabel(f"|error| ({unit})")
        return
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if column == 0:
        axes.set_ylabel(params[row], fontweight="bold")
    else:
        axes.tick_params(labelleft=False)
