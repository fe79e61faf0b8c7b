"""How all figures look: colours, room for the title, ticks.

Drawn with matplotlib's object-oriented interface: no window, no shared state. A colour means the same in every
figure and all can be told apart with any colour vision (Okabe & Ito 2008; viridis for maps).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from lanline.files import atomic_path

CHOICE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
ERROR_COLOUR = "#222222"
MUTED = "#666666"
STYLE: dict[Any, Any] = {
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
HEAD = 0.55  # inches for the title and its explanation


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix of ``path`` (png, svg, pdf) says in which format."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


def panels(width: float, height: float) -> Figure:
    """A figure that arranges its panels below the room for the title; sizes in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - HEAD / height)))


def headline(figure: Figure, takeaway: str, explanation: str) -> None:
    """One line that says what is seen, and a smaller one that says what is drawn."""
    point = 1 / 72 / figure.get_figheight()
    figure.text(0.01, 1 - 5 * point, takeaway, ha="left", va="top", fontsize=12, fontweight="bold")
    figure.text(0.01, 1 - 23 * point, explanation, ha="left", va="top", color=MUTED)


def log_ticks(axis: Axis, subs: tuple[float, ...]) -> None:
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def colour(choice_index: int) -> str:
    return CHOICE_COLOURS[choice_index % len(CHOICE_COLOURS)]


def reference_name(kind: str, of: str = "density") -> str:
    """What a network was judged against."""
    return f"{'exact' if kind == 'exact' else 'simulated'} {of}"


def window(rt: np.ndarray, density: np.ndarray) -> tuple[float, float]:
    """The response times that hold nearly all of a density, with some room on both sides."""
    cumulative = np.concatenate([[0.0], np.cumsum(np.diff(rt) * (density[1:] + density[:-1]) / 2)])
    if cumulative[-1] == 0:
        return float(rt[0]), float(rt[-1])
    first, last = np.interp([0.002, 0.985], cumulative / cumulative[-1], rt)
    return max(0.0, first - 0.12 * (last - first)), last + 0.03 * (last - first)
