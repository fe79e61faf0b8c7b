"""What the Snakefile knows of the engines, and the settings that it refuses before anything runs."""

import subprocess
import sys

import pytest

from lanline import engine_facts, engines
from lanline.config import parse_config
from lanline.engines.simulation import walks
from lanline.errors import UserError
from lanline.models import DEADLINE_SUFFIX, get_model, model_names
from lanline.versions import child_environment


def check(*models, **data):
    engine_facts.check_engines(parse_config({"name": "x", "models": list(models), "data": data}))


def test_an_engine_that_a_model_lacks_is_a_mistake_in_the_configuration():
    message = (
        r"configuration has 2 mistake\(s\):\n"
        r"  data\.engine: weibull_deadline has no closed_form; expected auto, first_passage, simulation\n"
        r"  data\.engine: levy has no closed_form; expected auto, simulation$"
    )
    with pytest.raises(UserError, match=message):
        check("ddm", "weibull_deadline", "levy", engine="closed_form")


@pytest.mark.parametrize("target", ["continuous", "euler"])
def test_every_model_has_the_engine_that_auto_means(target):
    names = model_names()
    check(*names, *(name + DEADLINE_SUFFIX for name in names), engine="auto", target=target)


def test_facts_are_those_of_the_engines():
    exact = {name for name in model_names() if engine_facts.has_exact(name)}
    assert exact == {name for name in model_names() if engines.has_exact(get_model(name))}
    own = {get_model(name).simulator for name in model_names() if engine_facts.has_own_simulator(name)}
    assert own == walks.SIMULATORS.keys()


def test_facts_are_had_without_the_engines():
    check("ddm")  # asks them, if nothing was asked yet
    code = (
        "import sys; from lanline import engine_facts; assert engine_facts.has_exact('ddm');"
        "print({'numba', 'ssms', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout == "set()\n"
