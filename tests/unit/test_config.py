"""Mistakes in a configuration: found before anything runs, one line each, with the key, the value, what is allowed."""

import pytest
import yaml
from snakemake.utils import update_config

import lanline.config
from conftest import ROOT
from lanline.config import check_time_limit, parse_config, schema_text
from lanline.engine_facts import check_engines
from lanline.errors import UserError
from lanline.files import read_yaml

SMALL = {"name": "test", "models": ["ddm"]}


def complaint(**changes) -> str:
    with pytest.raises(UserError) as caught:
        parse_config({**SMALL, **changes})
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trianing": {}}, ["trianing", "unknown key", "'training'"]),
        ({"training": {"optimiser": "adam"}}, ["training.optimiser", "'adam'", "'optimizer'"]),
        (
            {"training": {"optimizer": "admw"}},
            ["training.optimizer", "'admw'", "adam, adamw, sgd", "'adamw'"],
        ),
        ({"training": {"epochs": "three"}}, ["training.epochs", "integer", "'three'"]),
        ({"training": {"epochs": 0}}, ["training.epochs", "greater than or equal to 1", "0"]),
        ({"mlflow_tracking": "yes"}, ["mlflow_tracking", "boolean", "'yes'"]),
        ({"models": ["dmd"]}, ["models.0", "'dmd'", "'ddm'"]),
        ({"models": ["ddm", "ddm"]}, ["models", "'ddm' is listed twice"]),
        ({"models": [{"name": "ddm", "bounds": {"v": [-4, 4]}}]}, ["bounds.v", "[-4.0, 4.0]", "[-3.0, 3.0]"]),
        ({"models": [{"name": "ddm", "bounds": {"w": [0, 1]}}]}, ["bounds.w", "v, a, z, t"]),
        ({"models": [{"name": "ddm", "bounds": {"a": [1, 1]}}]}, ["bounds.a", "[1.0, 1.0]"]),
        ({"networks": [{"name": "n", "hidden_layers": [9]}]}, ["networks.0", "1 hidden_layers", "3"]),
        ({"networks": [{"name": "n", "activations": ["tanh", "tanh", "tahn"]}]}, ["activations.2", "'tanh'"]),
        ({"networks": [{"name": "n", "network_type": "cnp"}]}, ["network_type", "lan, cpn, opn, gonogo", "'cpn'"]),
        ({"networks": [{"name": "n", "network_type": "opn"}]}, ["'n'", "ddm has no deadline", "ddm_deadline"]),
        ({"networks": [{"name": "n", "training": {"epoch": 3}}]}, ["networks.0.training.epoch", "'epochs'"]),
        ({"networks": [{"name": "n", "training": {"seeds": [3]}}]}, ["networks.0", "training.seeds"]),
        ({"networks": [{"name": "n", "training": {"seeds_per_job": "all"}}]}, ["networks.0", "training.seeds_per_job"]),
        ({"training": {"seeds_per_job": 2}}, ["training.seeds_per_job: 2 is not one of 1, all"]),
        (
            {"networks": [{"name": "n", "network_type": "cpn", "training": {"loss": "mse"}}]},
            ["networks.0", "training.loss", "cross-entropy"],
        ),
        ({"networks": [{"name": "a-b"}]}, ["networks.0.name", "'a-b'"]),
        ({"data": {"mixture": {"density": 0.5}}}, ["data.mixture", "0.7"]),
        ({"data": {"shards": 1}}, ["data.shards", "greater than or equal to 2"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"name": "../up"}, ["name", "'../up'"]),
    ],
)
def test_a_mistake_is_named(changes, expected):
    message = complaint(**changes)
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    "changes",
    [
        {"tracking": {"url": "http://ann:s3cret@host"}},
        {"tracking": "http://ann:s3cret@host"},
        {"tracking": {"on_outage": "http://ann:s3cret@host"}},
        {"trackign": {"uri": "http://ann:s3cret@host"}},
        {"tracking": {"uri": ["http://ann:s3cret@host"]}},
    ],
)
def test_a_mistake_is_named_without_its_password(changes):
    message = complaint(**changes)
    assert "track" in message
    assert "s3cret" not in message


def test_every_mistake_is_listed_at_once():
    message = complaint(training={"epochs": 0, "loss": "hubr"}, seeed=3)
    assert "3 mistake(s)" in message
    assert len(message.splitlines()) == 4


def test_a_missing_required_key_is_named():
    with pytest.raises(UserError, match="name: this key is required"):
        parse_config({"models": ["ddm"]})


def test_a_number_that_yaml_takes_for_text_is_explained():
    values = yaml.safe_load("{training: {learning_rate: 1e-3, epochs: 1e2}, data: {max_t: abc}}")
    with pytest.raises(UserError) as error:
        parse_config({**SMALL, **values})
    assert "learning_rate: YAML reads 1e-3 as text: write 1.0e-3" in str(error.value)
    assert "epochs: YAML reads 1e2 as text: write whole numbers out" in str(error.value)
    assert "max_t: input should be a valid number, not 'abc'" in str(error.value)


def test_a_gate_that_no_network_can_pass_is_refused():
    with pytest.raises(UserError, match=r"evaluation.gate.mass: \[1.1, 0.9\]: expected the lower bound first"):
        parse_config({**SMALL, "evaluation": {"gate": {"mass": [1.1, 0.9]}}})


def test_the_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        read_yaml(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"list\.yaml: expected keys"):
        read_yaml(tmp_path / "list.yaml")


def test_narrower_bounds_replace_the_registry_s():
    config = parse_config({**SMALL, "models": [{"name": "ddm", "bounds": {"v": [-1, 2]}}]})
    assert config.model("ddm").bounds["v"] == (-1.0, 2.0)
    assert config.model("ddm").bounds["a"] == (0.3, 2.5)


def test_the_recipe_of_a_shard_ignores_the_number_of_shards():
    few = parse_config({**SMALL, "data": {"shards": 3}})
    many = parse_config({**SMALL, "data": {"shards": 4}})
    other = parse_config({**SMALL, "seed": 7})
    assert few.data_recipe("ddm") == many.data_recipe("ddm") != other.data_recipe("ddm")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configurations_are_valid(path):
    merged = read_yaml(ROOT / "config/config.yaml")
    update_config(merged, read_yaml(path))  # as Snakemake does with --configfile
    check_engines(parse_config(merged, str(path)))


def test_the_schema_for_editors_is_up_to_date():
    assert (ROOT / "config/schema.json").read_text() == schema_text(), "run `make schema`"


def test_every_key_is_explained():
    text = (ROOT / "config/README.md").read_text()
    sections = {"Tracking": "", "Data": "", "Mixture": "mixture.", "Network": "", "Training": "", "Evaluation": ""}
    sections |= {"Gate": "gate.", "Config": ""}
    for section, prefix in sections.items():
        for key in getattr(lanline.config, section).model_fields:
            documented = f"| `{prefix}{key}` |" in text or f"\n## {key}\n" in text or key in ("mixture", "gate")
            assert documented, f"config/README.md does not explain {prefix}{key} of {section}"


def test_a_network_may_be_trained_differently():
    networks = [{"name": "lan"}, {"name": "cpn", "network_type": "cpn", "training": {"epochs": 60, "keep": "best"}}]
    config = parse_config({**SMALL, "networks": networks, "training": {"batch_size": 77}})
    own = config.training_of("cpn")
    assert (own.epochs, own.keep, own.batch_size) == (60, "best", 77)
    assert config.training_of("lan") == config.training
    again = parse_config(config.model_dump(mode="json", exclude={"models"}) | {"models": ["ddm"]})
    assert again.training_of("cpn") == own


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"max_t": float("inf")}}, "data.max_t: input should be a finite number"),
        ({"data": {"delta_t": float("nan")}}, "data.delta_t"),
        ({"data": {"floor": float("nan")}}, "data.floor"),
        ({"data": {"floor": 5.0}}, "data.floor: input should be less than 0"),
        ({"data": {"target": "euler", "delta_t": 30.0}}, "must be shorter than max_t"),
        ({"training": {"buffer_gb": float("inf")}}, "training.buffer_gb"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate"),
        ({"training": {"label_floor": float("nan")}}, "training.label_floor"),
        ({"training": {"gradient_clip": float("inf")}}, "training.gradient_clip"),
        ({"evaluation": {"min_log_density": float("nan")}}, "evaluation.min_log_density"),
        ({"evaluation": {"gate": {"mass": [0.9, float("inf")]}}}, "evaluation.gate.mass.1"),
        ({"models": [{"name": "ddm", "bounds": {"v": [float("-inf"), 1.0]}}]}, "bounds.v.0"),
        ({"training": {"seeds": [1, 1]}}, "training.seeds: 1 is listed twice"),
        ({"training": {"frameworks": ["torch", "torch"]}}, "training.frameworks: torch is listed twice"),
        ({"seed": 99999999999999999999}, "seed: "),
        ({"mlflow_experiment_name": "x" * 600}, "mlflow_experiment_name: string should have at most 256 characters"),
        ({"mlflow_experiment_name": ""}, "mlflow_experiment_name"),
        ({"name": "x" * 300}, "name: string should have at most 100 characters"),
        ({"tracking": "sqlite:///x.db"}, "tracking: "),
    ],
)
def test_numbers_and_names_that_fail_late_are_refused_at_once(changes, expected):
    with pytest.raises(UserError) as caught:
        parse_config({"name": "x", "models": ["ddm"], **changes})
    assert expected in str(caught.value)


@pytest.mark.parametrize(("max_t", "wrong"), [(0.5, True), (0.9, True), (2.0, False), (20.0, False)])
def test_a_time_limit_before_most_responses_is_said_before_the_first_job(max_t, wrong):
    config = parse_config({"name": "x", "models": ["ddm"], "data": {"max_t": max_t}})
    if not wrong:
        return check_time_limit(config)
    with pytest.raises(UserError, match=rf"data.max_t is {max_t:g} s: at .* of the thetas of ddm"):
        check_time_limit(config)
    narrower = {"name": "ddm", "bounds": {"t": [0.001, 0.2]}}
    return check_time_limit(parse_config({"name": "x", "models": [narrower], "data": {"max_t": max_t}}))


def test_accepting_problems_is_no_part_of_the_recipe():
    values = {"name": "x", "models": ["ddm"]}
    accepting = parse_config({**values, "data": {"accept_problems": True}})
    assert accepting.data_recipe("ddm") == parse_config(values).data_recipe("ddm")
