"""What the outputs of a network mean: log-probabilities with the promised conventions, finite for large logits."""

import numpy as np
import pytest

from lanline.config import Network
from lanline.models import get_model
from lanline.networks.heads import exported_values, log_probabilities
from lanline.networks.specification import make_spec

LARGE = np.array([-1e4, -100.0, -1.0, 0.0, 2.0, 100.0, 1e4])


def spec_of(model, network_type):
    return make_spec(Network(name="n", network_type=network_type), get_model(model))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_give_finite_log_probabilities(dtype):
    for outputs in (LARGE.astype(dtype), np.stack([LARGE, 0 * LARGE, -LARGE], axis=1).astype(dtype)):
        values = log_probabilities(outputs)
        assert np.isfinite(values).all()
        assert values.max() <= 0
        np.testing.assert_allclose(np.exp(values).sum(axis=1), 1, rtol=1e-6)


def test_one_logit_is_the_log_odds_of_the_upper_choice_of_an_omission_or_of_no_go():
    outputs = np.array([np.log(3.0), -2.0])
    upper = 1 / (1 + np.exp(-outputs))
    for network_type, model in (("cpn", "ddm"), ("opn", "ddm_deadline"), ("gonogo", "ddm")):
        values = exported_values(spec_of(model, network_type), outputs, np.ones(2))
        np.testing.assert_allclose(np.exp(values), upper)
    lower = exported_values(spec_of("ddm", "cpn"), outputs, np.full(2, -1))
    np.testing.assert_allclose(np.exp(lower), 1 - upper)
    assert upper[0] == pytest.approx(0.75)


def test_several_choices_have_a_logit_each():
    spec = spec_of("race_4", "cpn")
    assert spec.layers[-1] == 4
    outputs = np.log([[0.1, 0.2, 0.3, 0.4]] * 4)
    np.testing.assert_allclose(np.exp(exported_values(spec, outputs, np.arange(4))), [0.1, 0.2, 0.3, 0.4])


def test_the_output_of_a_lan_is_the_log_likelihood():
    outputs = np.array([-3.0, 1.0])
    assert exported_values(spec_of("ddm", "lan"), outputs, np.ones(2)) is outputs
    assert spec_of("race_4", "lan").layers[-1] == 1


def test_probabilities_are_of_theta_alone():
    assert spec_of("ddm", "cpn").inputs == ("v", "a", "z", "t")
    assert spec_of("ddm", "cpn").exported_inputs == ("v", "a", "z", "t", "choice")
    assert spec_of("ddm_deadline", "opn").exported_inputs == ("v", "a", "z", "t", "deadline")
