"""Networks that give probabilities: metrics with known answers, calibration, the gate, figures."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lanline.config import Data, Evaluation, Gate, Network
from lanline.errors import UserError
from lanline.evaluation.error_map import error_figure
from lanline.evaluation.exported import open_network
from lanline.evaluation.gate import check_gate, evaluation_record
from lanline.evaluation.probability.figures import agreement_figure, probability_errors
from lanline.evaluation.probability.metrics import judge_probabilities, network_probabilities
from lanline.evaluation.probability.reference import NO_OUTCOME, make_probability_reference
from lanline.evaluation.style import write_figure
from lanline.models import get_model
from lanline.networks.heads import log_probabilities
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import write_onnx
from lanline.networks.specification import forward, make_spec

SETTINGS = Evaluation(trials=4000, mass_thetas=8, seed=7)


def spec_of(model, network_type):
    network = Network(name="n", network_type=network_type, hidden_layers=[12], activations=["tanh"])
    return make_spec(network, get_model(model))


def reference_of(model, network_type, data=None, settings=SETTINGS):
    return make_probability_reference(spec_of(model, network_type), get_model(model), data or Data(), settings)


@pytest.fixture(scope="module")
def omissions():
    return reference_of("ddm_deadline", "opn")


def off_by(reference, logit):
    """A network whose log-odds of the last of two categories are off by ``logit``."""
    second = np.clip(reference.probability[:, 1], 1e-9, 1 - 1e-9)
    odds = np.log(second / (1 - second)) + logit
    by_theta = dict(zip(map(tuple, reference.theta.astype(np.float32)), log_probabilities(odds), strict=True))

    def network(rows):
        values = np.array([by_theta[tuple(row[: reference.theta.shape[1]].astype(np.float32))] for row in rows])
        if reference.spec.network_type != "cpn":
            return values[:, 1]
        return np.where(rows[:, -1] > 0, values[:, 1], values[:, 0])

    return network


@pytest.mark.parametrize("model", ["ddm", "ddm_deadline"])
def test_a_perfect_network_has_no_error_and_is_calibrated(model):
    reference = reference_of(model, "cpn")
    assert reference.kind == "exact"
    metrics = judge_probabilities(off_by(reference, 0.0), reference, -10.0).metrics
    assert metrics.mae < 1e-5
    assert metrics.probability_mae < 1e-6
    assert metrics.calibration_error < 2 * metrics.calibration_noise
    omitted = (reference.outcome == NO_OUTCOME).mean()
    assert (omitted > 0.05) == (model == "ddm_deadline")


def test_an_error_in_the_log_odds_comes_back(omissions):
    judged = judge_probabilities(off_by(omissions, 0.5), omissions, -10.0)
    p = omissions.probability[:, 1]
    wrong = p * np.exp(0.5) / (1 - p + p * np.exp(0.5))
    metrics = judged.metrics
    assert metrics.probability_mae == pytest.approx(np.abs(wrong - p).mean(), rel=1e-4)
    assert metrics.bias < 0
    assert metrics.trials <= 4000
    assert metrics.thetas == 800
    # Of all simulated trials, fewer are omitted than such a network says.
    assert metrics.calibration_error > 2 * metrics.calibration_noise
    assert (judged.calibration.share - judged.calibration.predicted).mean() < 0


def test_the_simulators_outcomes_are_those_of_the_network_type(omissions):
    assert set(np.unique(omissions.outcome)) == {0, 1}
    assert omissions.outcome.mean() == pytest.approx(omissions.probability[:, 1].mean(), abs=0.03)
    go = reference_of("angle", "gonogo")
    assert go.outcome.mean() == pytest.approx(go.probability[:, 1].mean(), abs=0.03)
    choices = reference_of("lba3", "cpn")
    assert choices.probability.shape[1] == 3
    for category in range(3):
        share = (choices.outcome == category).sum() / (choices.outcome >= 0).sum()
        assert share == pytest.approx(choices.probability[:, category].mean(), abs=0.05)


def test_without_an_exact_density_the_reference_is_simulated():
    reference = reference_of("levy", "cpn", Data(n_trajectories=1000, delta_t=0.01, max_t=5.0))
    assert reference.kind == "simulation"
    assert reference.theta.shape[0] == 8
    metrics = judge_probabilities(off_by(reference, 0.0), reference, -10.0).metrics
    assert 0 < metrics.reference_sampling_error < 0.5 / np.sqrt(1000)


@pytest.mark.parametrize("network_type", ["cpn", "gonogo"])
def test_the_step_plays_no_part_in_continuous_time(network_type):
    """Not in the outcomes either: their simulation chooses its steps itself, as that of labels does."""
    few = SETTINGS.model_copy(update={"trials": 400})
    outcomes = [reference_of("ornstein", network_type, Data(delta_t=step), few).outcome for step in (1e-3, 0.1)]
    assert np.array_equal(*outcomes)


@pytest.mark.parametrize(("model", "network_type"), [("ddm", "cpn"), ("race_3", "cpn"), ("ddm_deadline", "opn")])
def test_probabilities_of_an_exported_network(tmp_path, model, network_type):
    spec = spec_of(model, network_type)
    weights = initial_weights(spec, 1)
    path = tmp_path / "model.onnx"
    write_onnx(path, spec, weights, {})
    theta = np.random.default_rng(1).normal(size=(50, len(spec.params)))
    sample = np.column_stack([theta, np.ones(50)])[:, : len(spec.exported_inputs)].astype(np.float32)
    probability = network_probabilities(open_network(path, sample), spec, theta)
    expected = np.exp(log_probabilities(forward(spec, weights, theta)))
    np.testing.assert_allclose(probability, expected, atol=1e-5)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)


def test_a_network_that_diverged_is_named(omissions):
    with pytest.raises(UserError, match="diverged"):
        judge_probabilities(lambda rows: np.full(len(rows), np.nan), omissions, -10.0)


def test_the_gate_has_a_limit_for_probabilities(omissions):
    metrics = judge_probabilities(off_by(omissions, 0.5), omissions, -10.0).metrics
    metrics = replace(metrics, mae=0.05, probability_mae=0.02)
    assert check_gate(metrics, Gate()).passed
    verdict = check_gate(metrics, Gate(max_probability_error=0.01))
    assert [criterion.metric for criterion in verdict.criteria if not criterion.passed] == ["probability_mae"]
    record = evaluation_record(metrics, verdict)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert "reference" not in metrics.numbers()


def test_figures_are_written(omissions, tmp_path):
    judged = judge_probabilities(off_by(omissions, 0.1), omissions, -10.0)
    figures = {"a.png": agreement_figure(judged, "x"), "e.png": error_figure(probability_errors(judged, "x"))}
    for name, figure in figures.items():
        write_figure(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 10_000
    assert "mean error 0.0" in figures["a.png"].texts[0].get_text()
