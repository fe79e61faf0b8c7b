"""``lanline labels``: the density of a model at one theta, from one engine or several on top of each other."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from lanline.commands.options import wide_console
from lanline.config import Data
from lanline.errors import UserError, did_you_mean
from lanline.evaluation.label_curves import LabelCurve, label_curves
from lanline.files import atomic_path
from lanline.models import DEADLINE_SUFFIX, Model, get_model
from lanline.theta import central_theta, outside_bounds

FIGURES = (".png", ".svg", ".pdf")
LARGEST = 1e4  # what a parameter can be
UNIFORM_RANGES = ("ddm_st", "full_ddm", "full_ddm2", "full_ddm_rv")  # t - st to t + st, z - sz to z + sz


def show_labels(name: str, theta_text: str | None, engines: Sequence[str], data: Data, output: Path | None) -> None:
    """Print the probabilities and response times of a model, and draw or write its density.

    Args:
        name: of the model.
        theta_text: ``v=1,a=1.5``; parameters that are left out have the middle of their bounds.
        engines: names of engines, or ``auto``; one curve each.
        data: settings of the engines.
        output: figure (png, svg, pdf) or table (csv) to write.

    Raises:
        UserError: the model, a parameter or an engine does not exist, or the suffix of ``output`` is not supported.
    """
    if output is not None and output.suffix not in (*FIGURES, ".csv"):
        raise UserError(f"--output {output}: expected a name that ends in {', '.join(FIGURES)} or .csv")
    model = get_model(name)
    theta = parse_theta(model, theta_text)
    curves = label_curves(model, theta, engines, data)
    _print(model, theta, curves)
    if output is None:
        return
    if output.suffix == ".csv":
        _write_table(output, model, curves)
    else:
        from lanline.evaluation.label_figure import label_figure
        from lanline.evaluation.style import write_figure

        write_figure(label_figure(model, theta, curves), output)
    print(f"written: {output}")


def parse_theta(model: Model, text: str | None) -> np.ndarray:
    """(P,) parameters from ``v=1,a=1.5``; the others have the middle of their bounds, under the registry's constraints.

    Raises:
        UserError: a part is not ``name=number``, the model has no such parameter, or cannot have this value.
    """
    given: dict[str, float] = {}
    for part in filter(None, (text or "").replace(" ", "").split(",")):
        param, _, value = part.partition("=")
        if param not in model.params:
            hint = did_you_mean(param, model.params)
            raise UserError(f"--theta {part}: {model.name} has the parameters {', '.join(model.params)}.{hint}")
        try:
            given[param] = float(value)
        except ValueError:
            given[param] = math.nan
        if wrong := _impossible(model, param, given[param]):
            raise UserError(f"--theta {part}: {wrong}")
    theta = central_theta(model, given)
    _check_ranges(model, theta)
    return theta


def _impossible(model: Model, param: str, value: float) -> str:
    """What is wrong with a value that the model cannot have; nothing is with one that is only outside its bounds."""
    if not math.isfinite(value):
        return f"expected {param}=number"
    if abs(value) > LARGEST:
        return f"expected a number within {LARGEST:g}"
    if param in ("a", "b") and value <= 0:
        return "bounds must be > 0"
    if param == "z" and model.choices == (-1, 1) and not 0 < value < 1:
        return "the start point lies between the bounds, 0 < z < 1"
    if param in ("t", "ndt", "deadline") and value < 0:
        return "a time must be >= 0"
    if param in ("sv", "st", "sz", "s", "s_pre", "s_post", "A") and value < 0:
        return "a standard deviation or a range must be >= 0"
    if param == "alpha" and "levy" in model.simulator and not 0 < value <= 2:
        return "the noise is stable for 0 < alpha <= 2"
    return ""


def _check_ranges(model: Model, theta: np.ndarray) -> None:
    """Refuse ranges of trial-to-trial variability that the model cannot have.

    Raises:
        UserError: the non-decision time could be negative, or the start point lie beyond both bounds.
    """
    value = dict(zip(model.params, theta, strict=True))
    if model.name.removesuffix(DEADLINE_SUFFIX) not in UNIFORM_RANGES:
        return
    if value["st"] > value["t"]:
        raise UserError(f"--theta: t - st is {value['t'] - value['st']:g}: the earliest non-decision time must be >= 0")
    widest = 2 * value["a"] if model.simulator == "full_ddm" else 1.0
    if 2 * value.get("sz", 0.0) > widest:
        raise UserError(f"--theta: sz={value['sz']:g}: start points z - sz to z + sz span more than the bounds")


def _print(model: Model, theta: np.ndarray, curves: Sequence[LabelCurve]) -> None:
    console = wide_console()
    shown = ", ".join(f"{param}={value:g}" for param, value in zip(model.params, theta, strict=True))
    console.print(f"{model.name}: {shown}", soft_wrap=True)
    if outside := outside_bounds(model, theta):
        console.print(f"outside the bounds that ssm-simulators registers: {', '.join(outside)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("engine", "choice", "P(choice)", "rt 10 %", "median", "90 %", "|difference|"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for curve in curves:
        difference = _number(curve.difference, 4) if curve is not curves[0] else ""
        for c, value in enumerate(model.choices):
            times = [_number(quantile, 3) for quantile in curve.quantiles[c]]
            start = (curve.engine, difference) if c == 0 else ("", "")
            table.add_row(start[0], str(value), f"{curve.probability[c]:.4f}", *times, start[1])
        table.add_row("", "none", f"{curve.omission:.4f}", "", "", "", "")
    console.print(table)
    if len(curves) > 1:
        console.print(f"|difference|: mean of log-density from {curves[0].engine}, nats, at responses drawn from it")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _write_table(path: Path, model: Model, curves: Sequence[LabelCurve]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["engine", "choice", "rt", "density"])
        for curve in curves:
            for value, density in zip(model.choices, curve.density, strict=True):
                pairs = zip(curve.rt, density, strict=True)
                writer.writerows([curve.engine, value, f"{t:.6g}", f"{f:.6g}"] for t, f in pairs)
