"""Parameter vectors of a model: drawn within its bounds, under the constraints that ssm-simulators registers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lanline.models import DEADLINE_SUFFIX, SUM_TO_ONE, Model


def sample_theta(model: Model, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw parameters uniformly within the bounds, under the registry's constraints.

    Returns:
        (n, P) in the order of ``model.params``.
    """
    return theta_from_unit_cube(model, rng.random((n, len(model.params))))


def theta_from_unit_cube(model: Model, points: np.ndarray) -> np.ndarray:
    """Parameters (n, P) at points (n, P) of the unit cube, under the registry's constraints.

    A bound that is another parameter's name is that parameter's value (``full_ddm_rv``: st below t).
    """
    theta = np.empty_like(points)
    for param in params_by_bounds(model):
        column = model.params.index(param)
        lower, upper = bounds_at(model, param, theta)
        theta[:, column] = lower + (upper - lower) * points[:, column]
    return apply_constraints(model, theta) if model.constrained else theta


def sobol_theta(model: Model, n: int, sequence: np.random.SeedSequence, skipped: int) -> np.ndarray:
    """(n, P) thetas of a scrambled Sobol sequence (Owen 1998), from number ``skipped`` on."""
    from scipy.stats import qmc  # a second to import

    points = qmc.Sobol(len(model.params), rng=np.random.default_rng(sequence))
    if skipped:  # scipy cannot go forward by 0
        points.fast_forward(skipped)
    return theta_from_unit_cube(model, points.random(n))


def float32_theta(model: Model, n: int, rng: np.random.Generator) -> np.ndarray:
    """`sample_theta`, rounded to float32 because that is what a network sees."""
    return sample_theta(model, n, rng).astype(np.float32).astype(float)


def central_theta(model: Model, given: Mapping[str, float]) -> np.ndarray:
    """(P,) the ``given`` parameters; the others have the middle of their bounds, under the registry's constraints."""
    theta = theta_from_unit_cube(model, np.full((1, len(model.params)), 0.5))[0]
    for param in params_by_bounds(model):
        if param in given:
            theta[model.params.index(param)] = given[param]
        elif any(bound in given for bound in model.bounds[param]):
            lower, upper = bounds_at(model, param, theta)
            theta[model.params.index(param)] = (lower + upper) / 2
    return theta


def outside_bounds(model: Model, theta: np.ndarray) -> list[str]:
    """The parameters of one theta (P,) that are not within their bounds."""
    outside = []
    for param, value in zip(model.params, theta, strict=True):
        lower, upper = bounds_at(model, param, theta)
        if not lower <= value <= upper:
            outside.append(param)
    return outside


def bounds_at(model: Model, param: str, theta: np.ndarray) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Lower and upper bound of a parameter; one that is another parameter is that one's value in ``theta`` (..., P)."""
    lower, upper = (
        theta[..., model.params.index(bound)] if isinstance(bound, str) else bound for bound in model.bounds[param]
    )
    return lower, upper


def params_by_bounds(model: Model) -> list[str]:
    """The parameters in an order in which every bound that is a parameter comes before what it bounds."""
    order: list[str] = []
    while len(order) < len(model.params):
        order += [
            param
            for param in model.params
            if param not in order and all(not isinstance(b, str) or b in order for b in model.bounds[param])
        ]
    return order


def apply_constraints(model: Model, theta: np.ndarray) -> np.ndarray:
    """Change parameters that were drawn within the bounds such that they keep the registry's constraints.

    These are ssm-simulators' own transforms, e.g. a start point above the bound is swapped with it. Imports
    ssm-simulators (seconds).

    Args:
        model: the model.
        theta: (n, P) in the order of ``model.params``.

    Returns:
        A new array of the same shape.
    """
    from ssms.config import ModelConfigBuilder
    from ssms.transforms import NormalizeToSumConstraint, SwapIfLessConstraint

    name = model.name.removesuffix(DEADLINE_SUFFIX)
    transforms = ModelConfigBuilder.get_sampling_transforms(ModelConfigBuilder.from_model(name))
    if name in SUM_TO_ONE:
        transforms = [NormalizeToSumConstraint(["v0", "v1", "v2"]), SwapIfLessConstraint("a", "z")]
    columns = {param: theta[:, i] for i, param in enumerate(model.params)}
    for transform in transforms:
        columns = transform.apply(columns)
    return np.stack([columns[param] for param in model.params], axis=1)
