"""The density of a model at one theta, as engines give it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lanline.evaluation.label_curves import LabelCurve
from lanline.evaluation.style import STYLE, colour, headline, panels, window
from lanline.models import Model

LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # of the first, second and third engine


def label_figure(model: Model, theta: np.ndarray, curves: Sequence[LabelCurve]) -> Figure:
    """Densities over response time, one colour for each choice and one kind of line for each engine.

    Args:
        model: the model.
        theta: (P,) its parameters.
        curves: one for each engine; of two choices the first is filled.
    """
    mirrored = len(model.choices) == 2  # one choice downwards, as the field draws them
    with rc_context(STYLE):
        figure = panels(7.2, 4.0)
        axes = figure.subplots()
        for number, curve in enumerate(curves):
            for c, density in enumerate(curve.density):
                drawn = -density if mirrored and c == 0 else density
                if mirrored and number == 0:
                    axes.fill_between(curve.rt, drawn, color=colour(c), alpha=0.22, lw=0)
                axes.plot(curve.rt, drawn, color=colour(c), ls=LINES[number % len(LINES)], lw=1.5)
        if mirrored:
            axes.axhline(0, color="#888888", lw=0.8)
        windows = [window(curve.rt, curve.density.sum(axis=0)) for curve in curves]
        axes.set_xlim(min(low for low, _ in windows), max(high for _, high in windows))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set_xlabel("response time (s)")
        axes.set_ylabel("density (1/s)")
        first = curves[0]
        handles: list[Artist] = [
            Patch(color=colour(c), label=f"choice {choice}: {first.probability[c]:.3f}".replace("-", "−"))
            for c, choice in enumerate(model.choices)
        ]
        if first.omission > 5e-4:
            handles.append(Patch(color="white", label=f"no response: {first.omission:.3f}"))
        handles += [
            Line2D([], [], color="black", ls=LINES[number % len(LINES)], label=curve.engine)
            for number, curve in enumerate(curves)
        ]
        axes.legend(handles=handles, loc="upper right")
        pairs = [f"{param} {value:g}" for param, value in zip(model.params, theta, strict=True)]
        headline(figure, model.name, ",  ".join(pairs).replace("-", "−"))
    return figure
