"""``lanline labels``: the density of a model at one theta, from one engine or several on top of each other."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from scipy.integrate import cumulative_trapezoid

from lanline.commands.options import wide_console
from lanline.config import Data
from lanline.dataset.rows import theta_from_unit_cube
from lanline.engines import Densities, densities, resolve_engine
from lanline.engines.closed_form import full_ddm
from lanline.errors import UserError, did_you_mean
from lanline.files import atomic_path
from lanline.models import Model, bounds_at, get_model, params_by_bounds

FIGURES = (".png", ".svg", ".pdf")
DRAWS = 10_000  # responses at which engines are compared
UNIFORM, SAMPLED = 1000, 4000  # points of a curve: evenly spaced, and where the responses are
SCARCE = 1e-6  # a choice that is made less often has no quantiles
QUANTILES = (0.1, 0.5, 0.9)
LARGEST = 1e4  # what a parameter can be
MIN_LOG_DENSITY = -10.0  # engines are compared where the first one is above this


@dataclass(frozen=True)
class LabelCurve:
    """A density as one engine gives it.

    Attributes:
        engine: its name.
        rt: (N,) increasing response times, seconds.
        density: (C, N) density of (rt, choice), 1/s.
        probability: (C,) of each choice before the time limit.
        omission: probability of no response before it.
        quantiles: (C, 3) 10 %, 50 % and 90 % quantile of rt, seconds; nan for a choice that is hardly ever made.
        difference: mean absolute difference in log-density from the first engine, nats, at that one's responses; nan
            if that one hardly ever responds in time.
    """

    engine: str
    rt: np.ndarray
    density: np.ndarray
    probability: np.ndarray
    omission: float
    quantiles: np.ndarray
    difference: float


def show_labels(name: str, theta_text: str | None, engines: Sequence[str], data: Data, output: Path | None) -> None:
    """Print the probabilities and response times of a model, and draw or write its density.

    Args:
        name: of the model.
        theta_text: ``v=1,a=1.5``; parameters that are left out have the middle of their bounds.
        engines: names of engines, or ``auto``; each gives a curve.
        data: settings of the engines.
        output: figure (png, svg, pdf) or table (csv) to write.

    Raises:
        UserError: the model, a parameter or an engine is not there, or the suffix of ``output`` is another one.
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
    theta = theta_from_unit_cube(model, np.full((1, len(model.params)), 0.5))[0]
    for param in params_by_bounds(model):
        if param in given:
            theta[model.params.index(param)] = given[param]
        elif any(bound in given for bound in model.bounds[param]):
            theta[model.params.index(param)] = np.mean(bounds_at(model, param, theta))
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
    """Refuse ranges of trial-to-trial variability that reach where the model has nothing.

    Raises:
        UserError: the non-decision time could be negative, or the start point lie beyond both bounds.
    """
    value = dict(zip(model.params, theta, strict=True))
    if not full_ddm.covers(model):
        return
    if value["st"] > value["t"]:
        raise UserError(f"--theta: t - st is {value['t'] - value['st']:g}: the earliest non-decision time must be >= 0")
    widest = 2 * value["a"] if model.simulator == "full_ddm" else 1.0
    if 2 * value.get("sz", 0.0) > widest:
        raise UserError(f"--theta: sz={value['sz']:g}: start points z - sz to z + sz are wider apart than the bounds")


def label_curves(model: Model, theta: np.ndarray, engines: Sequence[str], data: Data) -> list[LabelCurve]:
    """One curve for each engine.

    Raises:
        UserError: as `lanline.engines.resolve_engine`; or an engine has no density at a ``theta`` outside the bounds
            or the registry's constraints.
    """
    settings = [data.model_copy(update={"engine": engine}) for engine in engines]
    names = [resolve_engine(model, setting) for setting in settings]
    outside = _outside(model, theta)
    if not outside and not model.constrained:
        return _curves(model, theta, names, settings)
    # What the engines and ssm-simulators can do outside is not known beforehand, so it is tried.
    at = ", ".join(f"{param}={theta[model.params.index(param)]:g}" for param in outside or model.params)
    with np.errstate(all="ignore"):
        try:
            curves = _curves(model, theta, names, settings)
        except (ArithmeticError, ValueError) as error:
            raise UserError(f"--theta: {', '.join(names)} has no density at {at}: {error}") from error
    for curve in curves:
        if not (np.isfinite(curve.probability).all() and np.isfinite(curve.density).all()):
            raise UserError(f"--theta: {curve.engine} has no density at {at}")
    return curves


def _curves(model: Model, theta: np.ndarray, names: Sequence[str], settings: Sequence[Data]) -> list[LabelCurve]:
    rng = np.random.default_rng(0)
    found = [densities(model, theta[None], setting, rng) for setting in settings]
    rt, choice = found[0].sample(DRAWS, rng)
    # Nothing can be drawn from a model that hardly ever responds in time.
    silent = np.isnan(rt)
    rt, choice = np.where(silent, 0.0, rt), np.where(silent, model.choices[0], choice)
    first = found[0].log_density(rt, choice)
    counted = ~silent & (first > MIN_LOG_DENSITY)
    curves = []
    for name, density in zip(names, found, strict=True):
        with np.errstate(invalid="ignore"):
            difference = np.abs(np.maximum(density.log_density(rt, choice), settings[0].floor) - first)
        mean = float(difference[counted].mean()) if counted.any() else float("nan")
        curves.append(_curve(name, model, density, settings[0].max_t, mean, rng))
    return curves


def _curve(
    engine: str, model: Model, density: Densities, max_t: float, difference: float, rng: np.random.Generator
) -> LabelCurve:
    drawn, _ = density.sample(SAMPLED, rng)
    rt = np.unique(np.concatenate([np.linspace(0, max_t, UNIFORM), drawn[np.isfinite(drawn)]]))
    values = np.exp([density.log_density(rt[None], np.full((1, len(rt)), value))[0] for value in model.choices])
    if (drawn == 0).all():  # choice-only models have no response times, and rt is 0
        values = np.zeros_like(values)
    cumulative = cumulative_trapezoid(values, rt, axis=1, initial=0.0)
    # By the probability: a simulated choice that no trial made has a density all the same, a flat one.
    probability = density.choice_probability()[0]
    quantiles = [
        np.interp(QUANTILES, below / below[-1], rt)
        if min(share, below[-1]) > SCARCE
        else np.full(len(QUANTILES), np.nan)
        for share, below in zip(probability, cumulative, strict=True)
    ]
    return LabelCurve(
        engine=engine,
        rt=rt,
        density=values,
        probability=probability,
        omission=float(density.omission_probability()[0]),
        quantiles=np.array(quantiles),
        difference=difference,
    )


def _print(model: Model, theta: np.ndarray, curves: Sequence[LabelCurve]) -> None:
    console = wide_console()
    shown = ", ".join(f"{param}={value:g}" for param, value in zip(model.params, theta, strict=True))
    console.print(f"{model.name}: {shown}", soft_wrap=True)
    if outside := _outside(model, theta):
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


def _outside(model: Model, theta: np.ndarray) -> list[str]:
    """The parameters that are not within their bounds."""
    outside = []
    for param, value in zip(model.params, theta, strict=True):
        lower, upper = bounds_at(model, param, theta)
        if not lower <= value <= upper:
            outside.append(param)
    return outside


def _write_table(path: Path, model: Model, curves: Sequence[LabelCurve]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["engine", "choice", "rt", "density"])
        for curve in curves:
            for value, density in zip(model.choices, curve.density, strict=True):
                pairs = zip(curve.rt, density, strict=True)
                writer.writerows([curve.engine, value, f"{t:.6g}", f"{f:.6g}"] for t, f in pairs)
