"""The quick looks: which models there are, and what their densities look like."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from lanline.commands.labels import parse_theta
from lanline.commands.main import main
from lanline.config import Data
from lanline.evaluation.label_curves import label_curves
from lanline.models import get_model, model_names


def run(*arguments, fails=False) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert (done.exit_code != 0) == fails, done.output
    assert "Traceback" not in done.output
    return done.output


def test_every_model_is_listed_with_its_engines():
    output = run("models")
    lines = {line.split()[0]: line for line in output.splitlines() if line}
    assert set(model_names()) <= set(lines)
    assert "closed_form, first_passage, simulation" in lines["ddm"]
    assert "v a z t" in lines["ddm"]
    assert "0, 1, 2" in lines["lba3"]
    assert f"{len(model_names())} models" in output


def test_models_as_json_have_their_bounds():
    models = {model["name"]: model for model in json.loads(run("models", "--json"))}
    assert list(models) == model_names()
    assert models["ddm"]["bounds"]["a"] == list(get_model("ddm").bounds["a"])
    assert models["levy"]["engines"] == ["simulation"]
    assert [model["name"] for model in json.loads(run("models", "lca_no_bias_a", "--json"))] == [
        "lca_no_bias_angle_3",
        "lca_no_bias_angle_4",
    ]


def test_a_name_without_a_model_is_named():
    assert "no model has 'weibul_l' in its name. Did you mean 'weibull'?" in run("models", "weibul_l", fails=True)


def test_listing_models_imports_no_simulator_and_no_framework():
    code = (
        "import sys; from lanline.commands.models import print_models; print_models('ddm', False); "
        "assert not {'ssms', 'torch', 'jax', 'mlflow', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_theta_has_the_middle_of_the_bounds_where_it_is_not_given():
    assert parse_theta(get_model("ddm"), "v=1, a=0.5").tolist() == [1, 0.5, 0.5, 1]
    model = get_model("full_ddm_rv")  # st is bounded by t
    theta = dict(zip(model.params, parse_theta(model, "t=0.4"), strict=True))
    assert theta["st"] == pytest.approx((model.bounds["st"][0] + 0.4) / 2)


@pytest.mark.parametrize("name", [name for name in model_names() if get_model(name).constrained])
def test_theta_that_is_not_given_keeps_the_constraints(name):
    """ssm-simulators refuses drift rates that do not sum to 1, and starts beyond the bound."""
    model = get_model(name)
    (curve,) = label_curves(model, parse_theta(model, None), ["simulation"], Data(n_trajectories=50))
    assert curve.probability.sum() + curve.omission == pytest.approx(1)
    given = parse_theta(model, "a=0.3,z=0.4")  # what is given stays, constraint or not
    assert (given[model.params.index("a")], given[model.params.index("z")]) == (0.3, 0.4)


def test_probabilities_and_quantiles_are_those_of_the_engine():
    model = get_model("ddm")
    theta = parse_theta(model, "v=1,a=1,z=0.5,t=0.3")
    closed, first_passage = label_curves(model, theta, ["closed_form", "first_passage"], Data())
    assert closed.probability[1] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-3)
    assert closed.density.shape == (2, len(closed.rt))
    assert np.trapezoid(closed.density, closed.rt, axis=1) == pytest.approx(closed.probability, abs=2e-3)
    np.testing.assert_allclose(first_passage.quantiles, closed.quantiles, atol=2e-3)
    assert closed.difference == 0
    assert 0 < first_passage.difference < 2e-3


def test_labels_prints_a_table_and_says_what_is_outside_the_bounds():
    output = run("labels", "ddm_deadline", "--theta", "v=9,deadline=1.2,t=1", "--engine", "closed_form")
    assert "v=9, a=1.4, z=0.5, t=1, deadline=1.2" in output
    assert "registers: v" in output
    rows = [line.split() for line in output.splitlines()]
    assert any(row[:2] == ["closed_form", "-1"] for row in rows)
    (omission,) = (row for row in rows if row[:1] == ["none"])
    assert 0 < float(omission[1]) < 1


def test_engines_are_laid_over_each_other(tmp_path):
    path = tmp_path / "angle.csv"
    arguments = ("--theta", "t=0.3", "--trajectories", 2000)
    output = run("labels", "angle", *arguments, "--engine", "auto", "--engine", "simulation", "--output", path)
    assert "mean of log-density from closed_form" in output
    with path.open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["engine"] for row in rows} == {"closed_form", "simulation"}
    assert {row["choice"] for row in rows} == {"-1", "1"}
    for engine in ("closed_form", "simulation"):
        total = 0.0
        for choice in ("-1", "1"):
            part = [row for row in rows if (row["engine"], row["choice"]) == (engine, choice)]
            rt, density = (np.array([float(row[key]) for row in part]) for key in ("rt", "density"))
            total += np.trapezoid(density, rt)
        assert total == pytest.approx(1, abs=0.02)


def test_the_step_is_that_of_the_target_euler():
    plain = run("labels", "ddm")
    assert run("labels", "ddm", "--delta-t", 0.1) == plain
    # Trials are decided later: the walk overshoots its bounds.
    assert run("labels", "ddm", "--target", "euler", "--delta-t", 0.1) != plain
    assert "Step of the target euler" in run("labels", "--help")


@pytest.mark.parametrize("name", ["racing_diffusion_3", "ddm_st", "weibull", "ddm_truncnormt"])
def test_a_model_without_responses_before_the_time_limit(name):
    """Nothing can be drawn from it, and so there is nothing to compare engines at."""
    arguments = ("--max-t", 0.05, "--trajectories", 100, "--engine", "auto", "--engine", "simulation")
    rows = [line.split() for line in run("labels", name, *arguments).splitlines()]
    assert [row[1] for row in rows if row[:1] == ["none"]] == ["1.0000", "1.0000"]
    (simulated,) = (row for row in rows if row[:1] == ["simulation"])
    assert simulated[3:] == ["-", "-", "-", "-"]


@pytest.mark.parametrize(("model", "name"), [("ddm", "f.png"), ("lba3", "f.svg")])
def test_a_figure_is_written(tmp_path, model, name):
    assert f"written: {tmp_path / name}" in run("labels", model, "--output", tmp_path / name).replace("\n", "")
    assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("dmd",), "'ddm'"),
        (("ddm", "--theta", "w=1"), "v, a, z, t"),
        (("ddm", "--theta", "v=fast"), "expected v=number"),
        (("ddm", "--theta", "v=nan"), "--theta v=nan: expected v=number"),
        (("ddm", "--theta", "z=0"), "--theta z=0: the start point lies between the bounds, 0 < z < 1"),
        (("angle", "--theta", "z=1", "--engine", "first_passage"), "--theta z=1: the start point"),
        (("weibull", "--theta", "a=0"), "--theta a=0: bounds must be > 0"),
        (("racing_diffusion_3", "--theta", "b=-1"), "--theta b=-1: bounds must be > 0"),
        (("ddm_st", "--theta", "st=0"), "closed_form has no density at st=0"),
        (("poisson_race", "--theta", "r1=-1"), "closed_form has no density at r1=-1"),
        (("lba_angle_3", "--theta", "z=2", "--engine", "simulation"), "z=2: Starting point z >= a"),
        (("lba_3_vs_constraint", "--theta", "v0=1", "--engine", "simulation"), "do not sum to 1"),
        (("ddm", "--engine", "fp"), "auto, closed_form, first_passage, simulation"),
        (("ddm", "--output", "density.jpeg"), ".png, .svg, .pdf or .csv"),
        (("ddm", "--max-t", "-1"), "data.max_t"),
    ],
)
def test_mistakes_are_named(arguments, expected):
    assert expected in run("labels", *arguments, fails=True)
