"""Choice-only models; ssm-simulators registers them from version 0.15 on."""

import numpy as np
import pytest
from ssms.config import get_model_registry

from lanline.config import Data, Evaluation, Network
from lanline.engines import resolve_engine
from lanline.engines.closed_form import softmax
from lanline.errors import UserError
from lanline.evaluation.likelihood.figures import density_figure
from lanline.evaluation.likelihood.metrics import judge
from lanline.evaluation.likelihood.reference import make_reference
from lanline.evaluation.probability.metrics import judge_probabilities
from lanline.evaluation.probability.reference import make_probability_reference
from lanline.models import Model, get_model, model_names
from lanline.networks.specification import make_spec

NAME = "inv_temp_softmax_3"
# What ssm-simulators 0.15 registers, for versions without it.
BOUNDS = {"beta": (0.0, 10.0), "q0": (0.0, 1.0), "q1": (0.0, 1.0), "q2": (0.0, 1.0)}
MODEL = (
    get_model(NAME)
    if NAME in model_names()
    else Model(NAME, tuple(BOUNDS), BOUNDS, (0, 1, 2), 1, "constant", None, "inv_temp_softmax", False)
)
SETTINGS = Evaluation(trials=4000, mass_thetas=20, seed=7)


def softmax_simulator(*, beta, n_samples, n_trials, random_state, **given):
    """What ssm-simulators 0.15 has, for versions without it."""
    rng = np.random.default_rng(random_state)
    weights = np.exp(np.stack([np.ravel(beta * given[f"q{c}"]) for c in range(3)], axis=1).astype(float))
    drawn = [rng.choice(3, (n_samples, 1), p=row / row.sum()) for row in weights]
    choices = np.stack(drawn, axis=1)
    return {"rts": np.full(choices.shape, -1.0), "choices": choices, "metadata": {}}


@pytest.fixture
def registered(monkeypatch):
    if NAME in model_names():
        return
    bounds = [[0.0, 0.0, 0.0, 0.0], [10.0, 1.0, 1.0, 1.0]]
    own = {"name": NAME, "params": list(BOUNDS), "param_bounds": bounds, "default_params": [1.0, 0.5, 0.5, 0.5]}
    own |= {"n_params": 4, "nchoices": 3, "choices": [0, 1, 2], "simulator": softmax_simulator}
    facts = {**get_model_registry().get("ddm"), **own}
    monkeypatch.setitem(get_model_registry()._configs, NAME, facts)


def log_probability(rows):
    """A network that makes no error."""
    logits = rows[:, :1] * rows[:, 1:4]
    chosen = np.take_along_axis(logits, rows[:, -1:].astype(int), axis=1)[:, 0]
    return chosen - np.log(np.exp(logits).sum(axis=1))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("target", ["continuous", "euler"])
def test_networks_are_judged_at_simulated_choices(target):
    reference = make_reference(MODEL, Data(target=target), SETTINGS)
    assert (reference.kind, reference.trials.omitted) == ("exact", 0)
    assert (reference.trials.rt == 0).all()
    judged = judge(log_probability, reference)
    assert judged.metrics.mae < 1e-5
    assert judged.metrics.mass_q05 == pytest.approx(1, abs=1e-3)
    assert judged.metrics.mass_q95 == pytest.approx(1, abs=1e-3)
    density_figure(judged, "x").draw_without_rendering()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("network_type", ["cpn", "gonogo"])
def test_probabilities_are_judged_at_simulated_choices(network_type):
    spec = make_spec(Network(name="n", network_type=network_type), MODEL)
    reference = make_probability_reference(spec, MODEL, Data(), SETTINGS)

    def network(rows):
        p = np.exp([log_probability(np.column_stack([rows[:, :4], np.full(len(rows), c)])) for c in range(3)])
        return np.log(p[rows[:, -1].astype(int), np.arange(len(rows))] if network_type == "cpn" else 1 - p[2])

    metrics = judge_probabilities(network, reference, -10.0).metrics
    assert metrics.trials == 4000
    assert metrics.mae < 1e-5
    assert metrics.calibration_error < 2 * metrics.calibration_noise


def test_there_is_no_density_to_estimate_from_simulated_choices():
    assert resolve_engine(MODEL, Data()) == "closed_form"
    with pytest.raises(UserError, match=f"{NAME} has no simulation; expected auto, closed_form"):
        resolve_engine(MODEL, Data(engine="simulation"))


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
