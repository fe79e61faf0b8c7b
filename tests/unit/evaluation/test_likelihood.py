"""Metrics with known answers, the exported network at many trials, the gate, the figures and the summary."""

import functools
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from scipy import stats

from lanline import engines
from lanline.config import Data, Evaluation, Gate, Network
from lanline.errors import UserError
from lanline.evaluation.error_map import error_figure, likelihood_errors
from lanline.evaluation.exported import open_network
from lanline.evaluation.gate import check_gate, evaluation_record
from lanline.evaluation.likelihood.figures import Curve, density_figure, training_figure
from lanline.evaluation.likelihood.metrics import input_rows, judge
from lanline.evaluation.likelihood.reference import make_reference
from lanline.evaluation.style import write_figure
from lanline.evaluation.summary import as_html, as_json, as_markdown, as_text, read_summaries
from lanline.files import write_json
from lanline.models import get_model
from lanline.networks.artifacts import write_history
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import write_onnx
from lanline.networks.onnx_files import run_onnx
from lanline.networks.specification import forward, make_spec
from lanline.sidecars import TrainingSidecar

DDM = get_model("ddm")
SETTINGS = Evaluation(trials=4000, mass_thetas=20, seed=7)


@pytest.fixture(scope="module")
def reference():
    return make_reference(DDM, Data(), SETTINGS)


@functools.cache
def _exact(content: bytes) -> np.ndarray:
    rows = np.frombuffer(content, np.float32).reshape(-1, 6).astype(float)
    blocks = []
    for part in np.array_split(rows, len(rows) // 5000 + 1):
        exact = engines.densities(DDM, part[:, :4], Data(), np.random.default_rng(0))
        blocks.append(exact.log_density(part[:, 4:5], part[:, 5:6])[:, 0])
    return np.maximum(np.concatenate(blocks), Data().floor)


def perfect(rows: np.ndarray) -> np.ndarray:
    """A network that makes no error: the exact log-density of the ddm, one theta a row."""
    return _exact(rows.tobytes())


def biased(error):
    """A network that errs by ``error(n)`` at n rows."""
    return lambda rows: perfect(rows) + error(len(rows))


# --- the reference ------------------------------------------------------------------------------------------------
def test_trials_are_as_many_as_asked_for_and_all_count(reference):
    trials = reference.trials
    assert reference.kind == "exact"
    assert len(trials.rt) == len(trials.theta) == 4000
    assert trials.log_density.min() > SETTINGS.min_log_density
    assert (trials.rt > trials.theta[:, 3]).all()
    bounds = np.array(list(DDM.bounds.values()))
    assert (trials.theta >= np.float32(bounds[:, 0])).all()
    assert (trials.theta <= np.float32(bounds[:, 1])).all()


def test_trials_follow_the_reference(reference):
    """P(rt before its simulated value) is uniform if simulator and density are of the same model."""
    trials = reference.trials
    exact = engines.densities(DDM, trials.theta[:600], Data(), np.random.default_rng(0))
    draws, _ = exact.sample(200, np.random.default_rng(1))
    rank = (draws < trials.rt[:600, None]).mean(axis=1)
    assert stats.kstest(rank, "uniform").pvalue > 1e-3


def test_reference_repeats_and_depends_on_the_seed(reference):
    small = SETTINGS.model_copy(update={"trials": 300})
    first, again = (make_reference(DDM, Data(), small) for _ in range(2))
    other = make_reference(DDM, Data(), small.model_copy(update={"seed": 8}))
    np.testing.assert_array_equal(first.trials.rt, again.trials.rt)
    np.testing.assert_array_equal(first.curves.density, again.curves.density)
    assert not np.isin(other.trials.theta, first.trials.theta).any()


def test_a_limit_that_no_trial_reaches_is_a_mistake():
    settings = SETTINGS.model_copy(update={"trials": 100, "min_log_density": 50.0})
    with pytest.raises(UserError, match="min_log_density: only 0 of"):
        make_reference(DDM, Data(), settings)


def test_simulation_is_the_reference_without_an_exact_density():
    model = get_model("levy")
    assert not engines.has_exact(model)
    settings = SETTINGS.model_copy(update={"trials": 400, "mass_thetas": 4})
    small, large = (make_reference(model, Data(n_trajectories=n), settings) for n in (500, 4000))
    assert small.kind == "simulation"
    assert len(small.trials.rt) == 400
    assert small.curves.density.shape[:2] == (4, 2)
    mass = np.trapezoid(large.curves.density.sum(axis=1), large.curves.rt, axis=1) + large.curves.omission
    np.testing.assert_allclose(mass, 1, atol=0.02)
    scatter = [np.abs(ref.trials.halves_difference).mean() for ref in (small, large)]
    assert 0 < scatter[1] < scatter[0]


# --- metrics ------------------------------------------------------------------------------------------------------
def test_a_perfect_network_has_no_error_and_mass_one(reference):
    metrics = judge(perfect, reference).metrics
    assert metrics.trials == 4000
    assert metrics.mae < 1e-9
    assert metrics.reference_sampling_error == 0
    assert metrics.total_variation_q95 < 1e-9
    assert abs(metrics.mass_mean - 1) < 1e-3
    assert metrics.mass_q05 == pytest.approx(1, abs=3e-3)
    assert metrics.mass_q95 == pytest.approx(1, abs=3e-3)


def test_a_constant_error_comes_back(reference):
    metrics = judge(biased(lambda n: np.full(n, -0.2)), reference).metrics
    assert metrics.mae == pytest.approx(0.2)
    assert metrics.rmse == pytest.approx(0.2)
    assert metrics.abs_error_p99 == pytest.approx(0.2)
    assert metrics.bias == pytest.approx(-0.2)
    assert metrics.mae_standard_error == pytest.approx(0, abs=1e-9)
    # Every density is exp(-0.2) of the right one.
    assert metrics.mass_mean == pytest.approx(np.exp(-0.2), abs=2e-3)
    assert metrics.total_variation_mean == pytest.approx((1 - np.exp(-0.2)) / 2, abs=1e-3)


def test_a_normal_error_comes_back(reference):
    rng = np.random.default_rng(3)
    metrics = judge(biased(lambda n: 0.1 * rng.standard_normal(n)), reference).metrics
    assert metrics.mae == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.05)
    assert metrics.rmse == pytest.approx(0.1, rel=0.05)
    assert metrics.abs_error_p99 == pytest.approx(0.1 * stats.norm.ppf(0.995), rel=0.1)
    assert metrics.mae_standard_error == pytest.approx(0.1 * np.sqrt((1 - 2 / np.pi) / 4000), rel=0.1)


def test_mass_before_the_onset_is_seen(reference):
    """A network that fills the non-decision time with a density of 0.5/s for each choice."""

    def leaking(rows):
        early = (rows[:, 4] >= 0) & (rows[:, 4] < rows[:, 3])
        return np.where(early, np.log(0.5), perfect(rows))

    judged = judge(leaking, reference)
    assert judged.metrics.mae < 1e-9
    onset = reference.curves.theta[:, 3]
    assert judged.metrics.mass_mean == pytest.approx(1 + onset.mean(), abs=0.01)


def test_metrics_are_plain_numbers_even_for_a_hopeless_network(reference):
    judged = judge(lambda rows: np.full(len(rows), 1e6), reference)
    record = evaluation_record(judged.metrics, check_gate(judged.metrics, Gate()))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert all(isinstance(value, (int, float)) for value in judged.metrics.numbers().values())
    assert "reference" not in judged.metrics.numbers()


def test_a_network_that_diverged_is_named(reference):
    with pytest.raises(UserError, match="diverged"):
        judge(lambda rows: np.full(len(rows), np.nan), reference)


# --- the exported network -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An untrained network, its exported file, and inputs for it."""
    spec = make_spec(Network(name="lan", features="raw", hidden_layers=[30, 20], activations=["tanh", "gelu"]), DDM)
    path = tmp_path_factory.mktemp("network") / "model.onnx"
    weights = initial_weights(spec, 1)
    write_onnx(path, spec, weights, {})
    rng = np.random.default_rng(0)
    rows = input_rows(rng.normal(size=(20_000, 4)), rng.uniform(0, 5, 20_000), rng.choice([-1, 1], 20_000))
    return path, (lambda x: forward(spec, weights, x)), rows


def test_exported_network_at_many_trials(network):
    path, trained, rows = network
    values = open_network(path, rows[:50], threads=1)(rows)
    np.testing.assert_allclose(values, trained(rows), atol=1e-5)
    np.testing.assert_allclose(values[:200], run_onnx(path, rows[:200]), atol=1e-6)


def test_exported_network_must_fit_the_model(network):
    path, _, rows = network
    with pytest.raises(UserError, match=r"\[\[1, 6\]\], expected one of shape \[1, 5\]"):
        open_network(path, rows[:50, :5])


@pytest.mark.parametrize("content", [None, b"not a network"])
def test_exported_network_must_be_there(tmp_path, network, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx"):
        open_network(path, network[2][:50])


def test_a_graph_that_mixes_trials_is_refused(tmp_path, network):
    """One that adds up over its batch is right for one trial and wrong for many."""
    path, _, rows = network
    model = onnx.load_model(path)
    model.graph.node[-1].output[0] = "before"
    axes = onnx.numpy_helper.from_array(np.array([0]), "axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["before", "axes"], ["sum"], keepdims=1))
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "ratio"], ["output"]))
    model.graph.node.insert(-1, onnx.helper.make_node("Div", ["before", "sum"], ["ratio"]))
    mixed = tmp_path / "mixed.onnx"
    onnx.save_model(model, mixed)
    with pytest.raises(UserError, match="other values for many trials than for one"):
        open_network(mixed, rows[:50])


# --- the gate -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gate", "failed"),
    [
        (Gate(max_mae=0.21, mass=(0.8, 0.85)), []),
        (Gate(max_mae=0.19, mass=(0.8, 0.85)), ["mae"]),
        (Gate(max_mae=0.21, mass=(0.9, 1.1)), ["mass_q05"]),
        (Gate(max_mae=0.19, mass=(0.5, 0.6)), ["mae", "mass_q95"]),
    ],
)
def test_gate(reference, gate, failed):
    metrics = judge(biased(lambda n: np.full(n, -0.2)), reference).metrics
    verdict = check_gate(metrics, gate)
    assert [criterion.metric for criterion in verdict.criteria if not criterion.passed] == failed
    assert verdict.passed == (not failed)
    lines = str(verdict).splitlines()
    assert len(lines) == 4
    assert "0.2000" in lines[0]
    assert f"<= {gate.max_mae}" in lines[0]
    assert ("FAIL" in lines[0]) == ("mae" in failed)


def test_a_value_on_the_limit_passes(reference):
    metrics = replace(judge(perfect, reference).metrics, mae=0.06, mass_q05=0.9, mass_q95=1.1)
    assert check_gate(metrics, Gate()).passed


# --- figures ------------------------------------------------------------------------------------------------------
def test_figures_are_written(reference, tmp_path):
    rng = np.random.default_rng(3)
    judged = judge(biased(lambda n: 0.1 * rng.standard_normal(n)), reference)
    epoch = {"train_loss": 0.2, "validation_loss": 0.1, "validation_mae": 0.05, "seconds": 3.0}
    curves = [Curve("torch", [{"epoch": 1, **epoch}, {"epoch": 2, **epoch}]), Curve("jax", [{"epoch": 1, **epoch}])]
    figures = {
        "density.png": density_figure(judged, "ddm-lan-torch-s1"),
        "error.svg": error_figure(likelihood_errors(judged, "ddm-lan-torch-s1")),
        "training.png": training_figure(curves, "ddm-lan"),
    }
    for name, figure in figures.items():
        write_figure(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 10_000
    titles = {name: figure.texts[0].get_text() for name, figure in figures.items()}
    assert titles["density.png"] == "ddm-lan-torch-s1: mean error 0.080 nats over 4,000 trials"
    assert "99 % of 4,000 trials within 0.2" in titles["error.svg"]
    assert titles["training.png"] == "ddm-lan: validation error 0.050 (torch) and 0.050 (jax) nats"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(figures)


def test_figures_of_many_choices_and_few_thetas(tmp_path):
    model = get_model("race_no_bias_3")
    settings = SETTINGS.model_copy(update={"trials": 60, "mass_thetas": 2})
    reference = make_reference(model, Data(n_trajectories=300), settings)
    judged = judge(lambda rows: np.full(len(rows), -3.0), reference)
    for name, figure in (
        ("density.png", density_figure(judged, "x")),
        ("error.png", error_figure(likelihood_errors(judged, "x"))),
    ):
        write_figure(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 10_000


# --- summary ------------------------------------------------------------------------------------------------------
@pytest.fixture
def run_files(reference, tmp_path):
    """Two networks as a run leaves them: a worse one in torch, tracked, and a better one in jax."""
    runs, metrics = [], []
    for framework, error, run_id in (("torch", 0.2, "abc123"), ("jax", 0.01, None)):
        name = f"ddm-lan-{framework}-s1"
        values = {field: None for field, info in TrainingSidecar.model_fields.items() if "None" in str(info.annotation)}
        values |= {"name": name, "model": "ddm", "network": "lan", "network_type": "lan", "framework": framework}
        values |= {"seed": 1, "dataset_id": "d", "lineage_id": "l", "experiment_name": "ddm-training"}
        folder = tmp_path / "results" / name
        TrainingSidecar.model_validate({**values, "run_id": run_id}).write(folder / "run.json")
        write_history(folder / "history.csv", [{"epoch": e, "seconds": 20.5} for e in (1, 2)])
        numbers = judge(biased(lambda n, error=error: np.full(n, error)), reference).metrics
        write_json(tmp_path / f"{name}.json", evaluation_record(numbers, check_gate(numbers, Gate())))
        runs.append(folder / "run.json")
        metrics.append(tmp_path / f"{name}.json")
    return runs, metrics


def test_summary(run_files, tmp_path):
    runs, metrics = run_files
    summaries = read_summaries(runs, metrics)
    assert [summary.framework for summary in summaries] == ["jax", "torch"]
    text = as_text(summaries, tmp_path / "reports")
    jax, torch = (line.split("  ") for line in text.splitlines()[2:4])
    assert {"0.0100", "passed", "41 s"} <= {cell.strip() for cell in jax}
    assert any("FAILED: mae, mass_q95" in cell for cell in torch)
    assert all(str(run.with_name("model.onnx")) in text for run in runs)
    listed = text[text.index("as HSSM loads them") :].splitlines()[1:3]
    assert [line.endswith("(FAILED its gate)") for line in listed] == [False, True]
    assert "make mlflow-ui" in text
    assert "make report" in text
    table = [line for line in as_markdown(summaries, tmp_path / "reports").splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {9}
    assert ["**FAILED: mae, mass_q95**" in line for line in table[2:]] == [False, True]
    page = as_html(summaries)
    assert page.count("<tr") == 3
    assert page.index("0.0100") < page.index("FAILED: mae, mass_q95")
    content = json.loads(json.dumps(as_json(summaries), allow_nan=False))
    assert content["passed"] is False
    assert [network["passed"] for network in content["networks"]] == [True, False]
    assert content["networks"][0]["mae"] == pytest.approx(0.01)


def test_summary_names_a_missing_or_broken_file(run_files, tmp_path):
    runs, metrics = run_files
    metrics[0].write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_summaries(runs, metrics)
    with pytest.raises(UserError, match=r"none\.json"):
        read_summaries(runs, [metrics[1], tmp_path / "none.json"])
