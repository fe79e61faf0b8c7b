"""Parameter vectors: bounds that are parameters, and the middle of them."""

import numpy as np

from lanline.models import get_model
from lanline.theta import bounds_at, outside_bounds, params_by_bounds, sample_theta


def test_a_bound_that_is_a_parameter_is_its_value():
    model = get_model("full_ddm_rv")
    assert params_by_bounds(model).index("t") < params_by_bounds(model).index("st")
    rows = np.zeros((2, len(model.params) + 2), np.float32)
    rows[:, model.params.index("t")] = 0.5, 1.5
    lower, upper = bounds_at(model, "st", rows)
    assert (lower, upper.tolist()) == (model.bounds["st"][0], [0.5, 1.5])
    assert bounds_at(model, "st", rows[1]) == (lower, 1.5)
    assert bounds_at(model, "t", rows) == model.bounds["t"]


def test_drawn_parameters_lie_within_their_bounds_and_moved_ones_are_named():
    model = get_model("full_ddm_rv")
    theta = sample_theta(model, 1, np.random.default_rng(1))[0]
    assert outside_bounds(model, theta) == []
    theta[model.params.index("st")] = theta[model.params.index("t")] + 0.1
    theta[model.params.index("v")] = 100
    assert outside_bounds(model, theta) == ["v", "st"]
