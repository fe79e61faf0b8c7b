"""The registry behind one small type."""

import subprocess
import sys

import pytest

from lanline.errors import UserError
from lanline.models import get_model, model_names


def test_facts_are_those_of_ssm_simulators():
    from ssms.config import ModelConfigBuilder

    for name in model_names():
        model, entry = get_model(name), ModelConfigBuilder.from_model(name)
        assert list(model.params) == list(entry["params"])
        assert model.bounds == {p: tuple(entry["param_bounds_dict"][p]) for p in entry["params"]}
        assert len(model.choices) == entry["nchoices"]
        assert model.simulator == entry["simulator"].__name__


def test_ddm():
    model = get_model("ddm")
    assert model.params == ("v", "a", "z", "t")
    assert model.choices == (-1, 1)
    assert not model.constrained


def test_choices_that_the_registry_only_counts():
    assert get_model("lba_angle_3").choices == (0, 1, 2)
    assert get_model("lba_angle_3").constrained


def test_deadline_variant_has_the_deadline_last():
    model = get_model("angle_deadline")
    assert model.params == (*get_model("angle").params, "deadline")
    assert model.bounds["deadline"][0] < model.bounds["deadline"][1]


def test_unknown_name_says_the_closest():
    with pytest.raises(UserError, match=r"unknown model 'angel': .* Did you mean 'angle'?"):
        get_model("angel")


def test_the_registry_is_light_to_import():
    code = (
        "import sys, lanline.models as m; m.get_model('ddm');"
        "print([name for name in ('ssms', 'numba', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_labels_of_closed_forms_do_not_import_ssm_simulators():
    code = (
        "import sys; from lanline.config import Data; from lanline.dataset.rows import block_rows;"
        "from lanline.models import get_model; block_rows(get_model('angle'), Data(), 1, 0, 0);"
        "print('ssms' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
