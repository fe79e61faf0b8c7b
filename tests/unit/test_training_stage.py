"""What a training says that it used."""

import pytest

from lanline.config import Network, Training
from lanline.models import get_model
from lanline.networks.specification import make_spec
from lanline.training_stage import used_settings

ALWAYS = {"epochs", "batch_size", "learning_rate", "warmup_fraction", "optimizer", "schedule", "loss"}
SOMETIMES = {"momentum", "decay", "patience", "threshold", "min_learning_rate", "huber_delta", "label_floor"}


@pytest.mark.parametrize(
    ("network_type", "settings", "used"),
    [
        ("lan", {}, {"huber_delta", "label_floor"}),
        ("lan", {"loss": "mse", "optimizer": "sgd"}, {"momentum", "label_floor"}),
        ("lan", {"schedule": "exponential", "loss": "mse"}, {"decay", "label_floor"}),
        ("cpn", {"schedule": "reduce_on_plateau"}, {"decay", "patience", "threshold", "min_learning_rate"}),
    ],
)
def test_settings_of_other_optimizers_schedules_and_losses_are_left_out(network_type, settings, used):
    spec = make_spec(Network(name="n", network_type=network_type), get_model("ddm"))
    told = used_settings(Training(**settings), spec)
    assert told.keys() >= ALWAYS
    assert told.keys() & SOMETIMES == used
    assert told["loss"] == ("bce" if network_type == "cpn" else settings.get("loss", "huber"))
