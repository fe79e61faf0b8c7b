"""The density of a model at one theta, from one engine or several: curves, quantiles, and how far engines differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_trapezoid

from lanline.config import Data
from lanline.engines import Densities, densities, resolve_engine
from lanline.errors import UserError
from lanline.models import Model
from lanline.theta import outside_bounds

DRAWS = 10_000  # responses at which engines are compared
UNIFORM, SAMPLED = 1000, 4000  # points of a curve: evenly spaced, and where the responses are
SCARCE = 1e-6  # a choice that is made less often has no quantiles
QUANTILES = (0.1, 0.5, 0.9)
MIN_LOG_DENSITY = -10.0  # engines are compared where the first one is above this


@dataclass(frozen=True)
class LabelCurve:
    """A density according to one engine.

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


def label_curves(model: Model, theta: np.ndarray, engines: Sequence[str], data: Data) -> list[LabelCurve]:
    """One curve for each engine.

    Raises:
        UserError: as `lanline.engines.resolve_engine`; or an engine has no density at a ``theta`` outside the bounds
            or the registry's constraints.
    """
    settings = [data.model_copy(update={"engine": engine}) for engine in engines]
    names = [resolve_engine(model, setting) for setting in settings]
    outside = outside_bounds(model, theta)
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
