"""Figures of networks that give probabilities."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lanline.evaluation.error_map import ErrorMap
from lanline.evaluation.probability.metrics import JudgedProbabilities
from lanline.evaluation.style import MUTED, STYLE, colour, headline, panels, reference_name
from lanline.networks.specification import NetworkSpec

CELLS = 60


def agreement_figure(judged: JudgedProbabilities, name: str) -> Figure:
    """The network's probability against the reference's, and against how often it happens in simulated trials.

    Args:
        judged: from `lanline.evaluation.probability.metrics.judge_probabilities`.
        name: of the network, for the title.
    """
    metrics, reference, calibration = judged.metrics, judged.reference, judged.calibration
    event = _event(reference.spec)
    with rc_context(STYLE):
        figure = panels(9.9, 4.3)
        against_reference, difference = figure.subplots(1, 2)
        edges = np.linspace(0, 1, CELLS + 1)
        x, y = reference.probability[:, -1], judged.probability[:, -1]
        counts, _, _ = np.histogram2d(x, y, (edges, edges))
        mesh = against_reference.pcolormesh(
            edges, edges, np.ma.masked_equal(counts.T, 0), cmap="viridis", norm=LogNorm(1, max(counts.max(), 2))
        )
        against_reference.plot([0, 1], [0, 1], color=MUTED, lw=0.8)
        against_reference.set_title(f"P({event}) at {metrics.thetas:,} random thetas")
        against_reference.set_xlabel(reference_name(metrics.reference, "probability"))
        against_reference.set_ylabel("network")
        against_reference.set_aspect("equal")
        figure.colorbar(mesh, ax=against_reference, label="thetas").outline.set_visible(False)
        off = calibration.share - calibration.predicted
        difference.axhline(0, color=MUTED, lw=0.8)
        difference.fill_between(
            calibration.predicted, -2 * calibration.noise, 2 * calibration.noise, color="#999999", alpha=0.25, lw=0
        )
        difference.plot(calibration.predicted, off, color=colour(0), marker="o", ms=4, lw=0.9)
        reach = max(0.01, 1.15 * np.abs(off).max(), 2.5 * calibration.noise.max())
        difference.set_ylim(-reach, reach)
        difference.set_title(f"share of {calibration.trials.sum():,} simulated trials minus prediction")
        difference.set_xlabel(f"P({event}) by the network")
        handles = [
            Line2D([], [], color=colour(0), marker="o", ms=4, lw=0.9, label="bins with equal numbers of trials"),
            Line2D([], [], color="#999999", alpha=0.4, lw=6, label="95 % range of a perfect network"),
        ]
        difference.legend(handles=handles, loc="upper right")
        headline(
            figure,
            f"{name}: mean error {metrics.probability_mae:.4f} in probability, {metrics.mae:.4f} nats per trial",
            f"left: network and {reference_name(metrics.reference, 'probability')}; right: calibration against trials "
            "of ssm-simulators",
        )
    return figure


def probability_errors(judged: JudgedProbabilities, name: str) -> ErrorMap:
    """Errors in probability at random thetas."""
    reference, metrics = judged.reference, judged.metrics
    return ErrorMap(
        params=reference.spec.params,
        theta=reference.theta,
        thetas=len(reference.theta),
        error=np.abs(judged.probability - reference.probability).mean(axis=1),
        unit="probability",
        value=reference.probability[:, -1],
        value_name=f"P({_event(reference.spec)}), {metrics.reference}",
        takeaway=f"{name}: 99 % of {metrics.thetas:,} thetas within {metrics.probability_error_p99:.3f}",
        explanation=f"error: probability of the network minus the {reference_name(metrics.reference, 'probability')}, "
        "over the parameter space",
    )


def _event(spec: NetworkSpec) -> str:
    """What the last category is."""
    return {"cpn": f"choice {spec.choices[-1]}", "opn": "omission", "gonogo": "no go"}[spec.network_type]
