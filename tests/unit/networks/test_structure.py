"""Features and leading terms: one graph, read by two interpreters, finite wherever a sampler may look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agreement import registered
from lanline.config import Data, Network
from lanline.dataset.rows import sample_theta
from lanline.engines import densities
from lanline.engines.closed_form import series
from lanline.evaluation.exported import open_network
from lanline.models import get_model, model_names
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import run_onnx, write_onnx
from lanline.networks.specification import NetworkSpec, forward, make_spec
from lanline.networks.structure.bounds import BOUNDS, tangent
from lanline.networks.structure.drifts import DRIFTS
from lanline.networks.structure.evaluation import evaluate
from lanline.networks.structure.graph import Builder, compute
from lanline.networks.structure.smooth import log_passage
from lanline.networks.structure.terms import Inputs

# One of each bound, drift and way to vary over trials.
MODELS = [
    "ddm", "ddm_legacy", "ddm_deadline", "angle", "weibull", "ornstein_angle", "gamma_drift", "conflict_ds_angle",
    "conflict_dsstimflex", "conflict_stimflex", "conflict_stimflexrel1_leak", "shrink_spot", "shrink_spot_simple",
    "ddm_sdv", "ddm_st", "full_ddm", "full_ddm_rv", "ddm_truncnormt", "ddm_rayleight",
]  # fmt: skip
# What the leading term alone errs by, on average over trials: of some models it is all but the density itself.
LEADING = {
    "ddm": 1e-4, "angle": 1e-4, "ddm_sdv": 1e-4, "ddm_st": 1e-3, "full_ddm": 5e-3, "shrink_spot_simple": 3e-3,
    "weibull": 0.03, "conflict_ds": 0.03, "gamma_drift": 0.05, "ornstein": 0.1,
}  # fmt: skip


def spec_of(name, **changes):
    return make_spec(Network(name="lan", **changes), registered(name))


def onset(model, theta):
    return theta[:, model.params.index("t")] if "t" in model.params else np.zeros(len(theta))


def usual(model, n, rng):
    """Trials after the onset."""
    theta = sample_theta(model, n, rng)
    return np.column_stack([theta, onset(model, theta) + rng.exponential(1.0, n), rng.choice([-1, 1], n)])


def extreme(model, n, rng):
    """Parameters far outside of their bounds or zero, response times before and at the onset, wrong choices."""
    theta = sample_theta(model, n, rng)
    low, high = theta.min(axis=0), theta.max(axis=0)
    far = low + (high - low) * (0.5 + rng.choice([0.5, 3, 100, 1e4], (n, 1)) * rng.uniform(-1, 1, theta.shape))
    at = onset(model, theta) + rng.choice([0, 1e-7, 1e-4, 1e-3, -1e-7, -1e-3, -0.1], n)
    rt, choice = rng.choice([0, 1e3, -1e3, 0.5, 20], n), rng.choice([-1, 0, 1, 2, 7, -999], n)
    parts = [(theta, at), (theta, rt), (far, rt), (np.where(rng.random(theta.shape) < 0.4, 0.0, theta), rt)]
    return np.concatenate([np.column_stack([t, r, choice]) for t, r in parts]).astype(np.float32)


def in_jax(structure):
    """Features and leading term of one row of inputs (D,), and a sum of them that has all their gradients."""

    def values(x):
        found = []
        for node in structure.graph.nodes:
            found.append(compute(node, [found[a] for a in node.arguments], x[:, None], jnp))
        return jnp.concatenate([found[i] for i in (*structure.feature_nodes, *structure.leading)])[:, 0]

    def weighted(x):
        found = values(x)
        return (found * jnp.linspace(0.1, 1.0, len(found))).sum()

    return values, weighted


@pytest.mark.parametrize("name", MODELS)
def test_the_file_computes_what_training_sees(tmp_path, name):
    """Trial by trial, and with its batch axis opened."""
    spec = spec_of(name, hidden_layers=[8], activations=["tanh"])
    weights = initial_weights(spec, 1)
    weights["layer_0.weight"] *= 0.1
    write_onnx(tmp_path / "n.onnx", spec, weights, {})
    x = usual(registered(name), 500, np.random.default_rng(1)).astype(np.float32)
    expected = forward(spec, weights, x.astype(np.float64))
    scale = np.maximum(1, np.abs(expected))
    difference = np.abs(open_network(tmp_path / "n.onnx", x[:50])(x) - expected) / scale
    assert np.median(difference) < 2e-6
    assert difference.max() < 1e-3
    single = np.abs(run_onnx(tmp_path / "n.onnx", x[:50]) - expected[:50]) / scale[:50]
    assert single.max() < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_finite_wherever_a_sampler_may_look(name):
    model, structure = registered(name), spec_of(name).structure
    x = extreme(model, 300, np.random.default_rng(2))
    features, leading = structure.apply(x)
    assert np.isfinite(features).all()
    assert np.isfinite(leading).all()
    values, weighted = in_jax(structure)
    assert np.isfinite(jax.jit(jax.vmap(values))(x)).all()
    assert np.isfinite(jax.jit(jax.vmap(jax.grad(weighted)))(x)).all()


@pytest.mark.parametrize("name", MODELS)
def test_below_the_onset_the_density_falls_and_leads_back(name):
    """Later responses, or earlier onsets, are better all the way, and features stand still."""
    model, structure = registered(name), spec_of(name).structure
    theta = sample_theta(model, 50, np.random.default_rng(3))
    if "deadline" in model.params:  # one before the onset leaves nothing to be led back to
        theta[:, model.params.index("deadline")] = 20
    earliest = onset(model, theta)
    if "st" in model.params and "t" in model.params:
        earliest = earliest - theta[:, model.params.index("st")]
    for choice in (-1, 1):
        before = [np.column_stack([theta, earliest - lag, np.full(50, choice)]) for lag in (2.0, 1.0, 0.5, 0.1, 0.02)]
        values = np.stack([structure.apply(x)[1][:, 0] for x in before])
        assert (values < -10).all()
        assert (np.diff(values, axis=0) > 1).all()
        features = np.stack([structure.apply(x)[0] for x in before[:3]])
        np.testing.assert_allclose(features[0], features[2], atol=0.05)


@pytest.mark.parametrize("name", LEADING)
def test_the_leading_term_is_near_the_exact_density(name):
    model, rng = registered(name), np.random.default_rng(4)
    theta = sample_theta(model, 200, rng)
    exact = densities(model, theta, Data(), rng)
    rt, choice = exact.sample(20, rng)
    expected = exact.log_density(rt, choice).ravel()
    x = np.column_stack([np.repeat(theta, 20, axis=0), rt.ravel(), choice.ravel()])
    _, leading = spec_of(name).structure.apply(x)
    counted = np.isfinite(expected) & (expected > -10)
    assert np.abs(leading[:, 0] - expected)[counted].mean() < LEADING[name]


@pytest.mark.parametrize("name", ["ddm_deadline", "angle_deadline", "full_ddm_deadline"])
def test_nothing_is_left_after_the_deadline(name):
    """The leading term's mass and the probability of an omission make 1."""
    model, rng = registered(name), np.random.default_rng(7)
    theta = sample_theta(model, 60, rng)
    omission = densities(model, theta, Data(), rng).omission_probability()
    rt = np.sort(np.concatenate([np.linspace(0, 20, 20_000), theta[:, model.params.index("deadline")] + 1e-9]))
    mass = np.zeros(len(theta))
    for choice in model.choices:
        rows = np.column_stack(
            [np.repeat(theta, len(rt), axis=0), np.tile(rt, len(theta)), np.full(len(rt) * len(theta), choice)]
        )
        _, leading = spec_of(name).structure.apply(rows)
        mass += np.trapezoid(np.exp(leading[:, 0].reshape(len(theta), -1)), rt, axis=1)
    np.testing.assert_allclose(mass + omission, 1, atol=0.02)


def test_exchanging_the_bounds_changes_nothing():
    """The density, and so the features, are those of the other choice with drift and start turned."""
    spec = spec_of("angle")
    x = usual(get_model("angle"), 200, np.random.default_rng(5))
    turned = x * [-1, 1, 1, 1, 1, 1, -1]
    turned[:, 2] = 1 - x[:, 2]
    for one, two in zip(spec.structure.apply(x), spec.structure.apply(turned), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("ddm", "full"))])
def test_bounds_and_drifts_are_those_that_ssm_simulators_registers(name):
    from ssms.config import get_boundary_registry, get_drift_registry

    model, rng = registered(name), np.random.default_rng(6)
    theta, t = sample_theta(model, 100, rng), np.sort(rng.uniform(0.02, 4.0, 100))
    inputs = Inputs(model, (*model.params, "rt", "choice"))
    time = inputs.builder.input("rt")
    wanted = {"bound": BOUNDS[model.boundary](inputs).at(time)}
    if model.drift in DRIFTS:
        drift = DRIFTS[model.drift](inputs)
        wanted["drift"] = drift.at(time, inputs.constant(1e-3))
    graph, places = inputs.builder.graph([value + time * 0.0 + 1e-12 for value in wanted.values()])
    actual = evaluate(graph, np.column_stack([theta, t, np.ones(100)]), places)
    for column, kind in enumerate(wanted):
        registry, key = (
            (get_boundary_registry(), model.boundary) if kind == "bound" else (get_drift_registry(), model.drift)
        )
        entry = registry.get(key)
        expected = []
        for row, at in zip(theta.astype(np.float32), t.astype(np.float32), strict=True):
            given = {p: float(row[model.params.index(p)]) for p in entry["params"] if p in model.params}
            expected.append(float(np.ravel(entry["fun"](t=np.array([at, 5.0], float), **given))[0]))
        # Steps of a drift are smoothed over the window; the normal distribution is known to 2e-4.
        close = np.abs(actual[:, column] - expected) < 5e-3 * (1 + np.abs(expected))
        assert close.mean() > (0.97 if kind == "drift" else 0.999)


def test_the_driftless_density_is_that_of_the_series():
    builder, rng = Builder(["s", "y"]), np.random.default_rng(7)
    log_f, _ = log_passage(builder.input("s"), builder.input("y"))
    graph, places = builder.graph([log_f])
    s, y = np.exp(rng.uniform(-6, 2, 5000)).astype(np.float32), rng.uniform(-0.99, 0.99, 5000).astype(np.float32)
    actual = evaluate(graph, np.stack([s, y], axis=1), places)[:, 0]
    expected = [series.log_density(float(a), 1 - float(b)) for a, b in zip(s, y, strict=True)]
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_tangents():
    builder = Builder(["x"])
    graph, places = builder.graph([tangent(builder.input("x"))])
    x = np.linspace(-1.5, 1.5, 101).astype(np.float32)
    np.testing.assert_allclose(evaluate(graph, x[:, None], places)[:, 0], np.tan(x.astype(float)), rtol=1e-4)


def test_a_specification_survives_the_network_folder():
    spec = spec_of("weibull")
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert spec_of("ddm", features="raw").structure is None
    assert NetworkSpec.from_json({k: v for k, v in spec.to_json().items() if k != "structure"}).structure is None


@pytest.mark.parametrize("network_type", ["cpn", "gonogo"])
def test_networks_that_give_probabilities_have_raw_inputs(network_type):
    assert spec_of("ddm", network_type=network_type).structure is None


def test_every_model_of_one_particle_with_gaussian_noise_has_a_structure():
    """But one whose two stimuli leak at different rates, and those with several stages."""
    without = {name for name in model_names() if spec_of(name).structure is None}
    assert {name for name in without if get_model(name).choices == (-1, 1) and get_model(name).n_particles == 1} == {
        "conflict_stimflexrel1_leak2",
        "levy",
        "levy_angle",
    }
