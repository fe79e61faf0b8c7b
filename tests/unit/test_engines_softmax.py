"""Choice-only models; ssm-simulators registers them from version 0.15 on."""

import numpy as np
import pytest

from lanline.engines import softmax
from lanline.models import Model, get_model, model_names

NAME = "inv_temp_softmax_3"
# What ssm-simulators 0.15 registers, for versions without it.
BOUNDS = {"beta": (0.0, 10.0), "q0": (0.0, 1.0), "q1": (0.0, 1.0), "q2": (0.0, 1.0)}
MODEL = (
    get_model(NAME)
    if NAME in model_names()
    else Model(NAME, tuple(BOUNDS), BOUNDS, (0, 1, 2), 1, "constant", None, "inv_temp_softmax", False)
)


def test_probabilities_samples_and_labels():
    theta = np.array([[2.0, 0.1, 0.9, 0.5], [0.0, 0.2, 0.3, 0.4], [10.0, 1.0, 0.0, 0.9]])
    assert softmax.covers(MODEL)
    density = softmax.densities(MODEL, theta, np.full(3, 20.0), 0.0)
    weights = np.exp(theta[:, :1] * theta[:, 1:])
    expected = weights / weights.sum(axis=1, keepdims=True)
    assert density.choice_probability() == pytest.approx(expected)
    assert density.omission_probability() == pytest.approx(np.zeros(3))
    rt, choice = density.sample(50_000, np.random.default_rng(0))
    assert (rt == 0).all()
    for c in MODEL.choices:
        assert (choice == c).mean(axis=1) == pytest.approx(expected[:, c], abs=0.01)
        labels = density.log_density(np.array([[0.0, 3.0]] * 3), np.full((3, 2), float(c)))
        assert labels == pytest.approx(np.log(np.repeat(expected[:, c : c + 1], 2, axis=1)))
    assert np.isneginf(density.log_density(np.full((3, 1), -0.5), np.zeros((3, 1)))).all()
