"""The examples of docs/hssm.md in the real HSSM, with networks that the workflow has just made."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hssm.base", reason="HSSM is not installed: make test-hssm makes an environment with it")

import pandas as pd
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from ssms.basic_simulators.simulator import simulator

import hssm
import lanline.hssm
from conftest import ROOT
from hssm_networks import BOUNDS
from lanline.config import Network
from lanline.errors import UserError
from lanline.models import get_model
from lanline.networks.artifacts import write_hssm_files
from lanline.networks.initial import initial_weights
from lanline.networks.onnx_export import write_onnx
from lanline.networks.onnx_files import run_onnx
from lanline.networks.specification import make_spec

pytestmark = pytest.mark.hssm
BACKENDS = lanline.hssm.BACKENDS
DDM = {"v": 0.8, "a": 1.2, "z": 0.45, "t": 0.3}
RACE = {"v0": 1.5, "v1": 0.9, "v2": 0.6, "v3": 1.2, "a": 2.0, "z": 0.4, "t": 0.3}
MISSING = -999.0


def simulated(model: str, theta: dict[str, float], n: int) -> pd.DataFrame:
    out = simulator(theta=list(theta.values()), model=model, n_samples=n, random_state=1)
    return pd.DataFrame({"rt": out["rts"][:, 0], "response": out["choices"][:, 0]}).astype(float)


def missing_where(data: pd.DataFrame, where: pd.Series) -> pd.DataFrame:
    return data.assign(rt=data.rt.where(~where, MISSING))


def example_data(name: str, n: int = 300) -> pd.DataFrame:
    """Data as an example of the page wants them."""
    if name == "four choices":
        return simulated("race_no_bias_4", RACE, n)
    data = simulated("ddm", DDM, n)
    match name:
        case "regression":
            return data.assign(effort=np.linspace(-1, 1, n))
        case "opn: no response before a deadline":
            data = data.assign(deadline=np.where(np.arange(n) % 2, 0.8, 1.4))
            return missing_where(data, data.rt >= data.deadline)
        case "gonogo: no go response":
            return missing_where(data, data.response < 0)
        case "cpn: the response is known, its rt is not":
            return missing_where(data, data.index % 3 == 0)
        case "cpn of one choice":
            return missing_where(data, (data.index % 2 == 0) & (data.response > 0))
    return data


def examples() -> dict[str, str]:
    """Code of docs/hssm.md by its heading."""
    page = (ROOT / "docs/hssm.md").read_text()
    return dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```python\n(.*?)^```", page, re.M | re.S))


class Example:
    """An example of the page: what it built, and the files that it used."""

    def __init__(self, name: str, folder: Path, scratch: Path, backend: str = "jax", p_outlier: float | None = 0.05):
        code = examples()[name]
        code = code.replace('"results/ddm/lan-and-response"', f'"{scratch}"')
        code = re.sub(r"results/ddm/(networks/[\w-]+)", lambda found: self.find(folder, found[1]), code)
        code = code.replace("model_config(lan)", f"model_config(lan, backend={backend!r})")
        code = code.replace('"approx_differentiable"', f'"approx_differentiable", p_outlier={p_outlier}')
        self.data = example_data(name)
        space = {"data": self.data}
        exec(code, space)
        self.model, self.lan = space["model"], Path(space["lan"])
        self.for_missing = next(iter(re.findall(r'loglik_missing_data="(.*?)"', code)), None)
        self.backend, self.p_outlier = backend, p_outlier

    @staticmethod
    def find(folder: Path, name: str) -> str:
        (found,) = folder.glob(f"results/*/{name}")
        return str(found)

    def likelihood(self, theta: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihoods (n,) of the trials, in HSSM's order, and the gradient (P,) of their sum."""
        params = {name: pt.dscalar(name) for name in theta}
        n = len(self.model.data)
        trialwise = [name for name, param in self.model.params.items() if param.is_trialwise]
        values = [pt.full((n,), params[name]) if name in trialwise else params[name] for name in theta]
        p_outlier = [] if self.p_outlier is None else [pt.constant(self.p_outlier)]
        columns = pt.constant(self.model.data[self.model.response].to_numpy(float))
        value = self.model.model_distribution.logp(columns, *values, *p_outlier)
        outputs = [value, *pytensor.grad(value.sum(), list(params.values()))]
        function = pytensor.function(list(params.values()), outputs, mode=Mode("py", "fast_compile"))
        found, *gradient = function(*theta.values())
        return found, np.array(gradient)

    def expected(self, theta: dict[str, float]) -> np.ndarray:
        """The same by onnxruntime, from the columns that the files say they take."""
        data = self.model.data.assign(**theta)
        missing = (data.rt == MISSING).to_numpy()
        values = np.empty(len(data))
        observed = lanline.hssm.read_description(self.lan)["inputs"]
        values[~missing] = run_onnx(self.lan, data.loc[~missing, observed].to_numpy())
        if self.for_missing:
            columns = lanline.hssm.read_description(self.for_missing)["inputs"]
            if "choice_" in self.for_missing:
                columns.remove("response")
            values[missing] = run_onnx(self.for_missing, data.loc[missing, columns].to_numpy())
        values[~missing & (data.rt <= theta["t"])] = -66.1  # HSSM's own floor
        if self.p_outlier is None:
            return values
        lapse = self.p_outlier * np.where(missing, 0, 1 / 20)
        return np.log((1 - self.p_outlier) * np.exp(values) + lapse + 1e-29)


@pytest.fixture
def example(hssm_networks, tmp_path):
    def build(name: str, **options) -> Example:
        return Example(name, hssm_networks, tmp_path / "with_extra_fields", **options)

    return build


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("p_outlier", [None, 0.05])
@pytest.mark.parametrize("name", examples())
def test_log_likelihoods_equal_onnxruntimes_and_gradients_are_finite(example, name, backend, p_outlier):
    built = example(name, backend=backend, p_outlier=p_outlier)
    theta = RACE if name == "four choices" else DDM
    expected = built.expected(theta)
    found, gradient = built.likelihood(theta)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert np.ptp(expected) > 0.5
    if built.for_missing:
        assert 20 < (built.model.data.rt == MISSING).sum() < 280


@pytest.mark.parametrize("name", examples())
def test_bounds_priors_and_initial_values_lie_in_the_box_of_the_training(example, name):
    built = example(name)
    theta = RACE if name == "four choices" else DDM
    trained = BOUNDS if theta is DDM else get_model("race_no_bias_4").bounds
    assert built.model.list_params[: len(theta)] == list(theta)
    for param, (lower, upper) in trained.items():
        assert built.model.params[param].bounds == (lower, upper)
        if (param, name) != ("v", "regression"):
            assert built.model.params[param].prior.args.items() >= {"lower": lower, "upper": upper}.items()
            assert lower <= built.model.initvals[param] <= upper
    assert all(np.isfinite(value).all() for value in built.model.initvals.values())
    assert np.isfinite(
        built.model.pymc_model.compile_logp(mode=Mode("py", "fast_compile"))(built.model.pymc_model.initial_point())
    )


def sampled(model: hssm.HSSM, draws: int = 300):
    return model.sample(
        sampler="numpyro", chains=1, cores=1, draws=draws, tune=300, random_seed=3, progressbar=False
    ).posterior


def test_parameters_of_simulated_data_are_recovered(example):
    """A permuted column or a swapped choice would be far off: z is below 0.5, and v above 0."""
    posterior = sampled(example("lan").model)
    for name, value in DDM.items():
        low, high = np.quantile(posterior[name], [0.001, 0.999])
        assert low < value < high, name
    assert np.quantile(posterior["v"], 0.01) > 0.3


@pytest.mark.parametrize(
    "name", [name for name in examples() if name not in ("lan", "four choices", "cpn of one choice")]
)
def test_missing_rts_and_regressions_are_sampled(example, name):
    posterior = sampled(example(name).model, draws=150)
    for param, value in DDM.items():
        if param in posterior:
            mean, deviation = float(posterior[param].mean()), float(posterior[param].std())
            assert abs(mean - value) < 4 * deviation, param
            assert 0 < deviation < 0.3
    if name == "regression":  # the data do not depend on it
        assert abs(float(posterior["v_effort"].mean())) < 4 * float(posterior["v_effort"].std())


def test_hssm_gives_every_trial_without_an_rt_the_probability_of_one_choice(example):
    """The trap of docs/hssm.md; with the response as an extra field there are two."""
    values = {}
    for name in ("cpn of one choice", "cpn: the response is known, its rt is not"):
        built = example(name, p_outlier=None)
        values[name] = np.unique(built.likelihood(DDM)[0][: (built.model.data.rt == MISSING).sum()].round(9))
    one, two = values.values()
    assert len(one) == 1
    assert len(two) == 2
    assert np.exp(two).sum() == pytest.approx(1)
    assert one[0] == pytest.approx(two.max(), abs=1e-6)  # the upper choice is the likelier one here


def test_the_order_of_parameters_is_the_networks(tmp_path):
    """HSSM has racing_diffusion_3 as A, b, v0, v1, v2, t, and takes that order for the network's without a word."""
    spec = make_spec(Network(name="lan"), get_model("racing_diffusion_3"))
    weights = initial_weights(spec, 1)
    write_onnx(tmp_path / "model.onnx", spec, weights, {})
    write_hssm_files(tmp_path, spec, weights, {}, get_model("racing_diffusion_3").bounds)
    data = simulated("racing_diffusion_3", dict(zip(spec.params, (1.5, 1.0, 0.7, 0.4, 1.5, 0.3), strict=True)), 50)
    config = lanline.hssm.model_config(tmp_path)
    assert config["list_params"] == ["v0", "v1", "v2", "A", "b", "t"]
    orders = []
    for given in (config, {key: config[key] for key in ("bounds", "backend", "default_priors")}):
        model = hssm.HSSM(
            data,
            model="racing_diffusion_3",
            model_config=given,
            loglik=tmp_path / "model.onnx",
            loglik_kind="approx_differentiable",
        )
        orders.append(model.list_params[:6])
    assert orders == [["v0", "v1", "v2", "A", "b", "t"], ["A", "b", "v0", "v1", "v2", "t"]]


def test_a_backend_that_cannot_compute_the_network_is_refused(tmp_path):
    spec = make_spec(Network(name="lan", hidden_layers=[4], activations=["relu"]), get_model("ddm"))
    write_hssm_files(tmp_path, spec, {}, {}, get_model("ddm").bounds)
    assert lanline.hssm.model_config(tmp_path)["backend"] == "jax"
    with pytest.raises(UserError, match="pytensor backend does not compute"):
        lanline.hssm.model_config(tmp_path, "pytensor")


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "relu", "elu", "gelu"])
def test_activations_work_in_the_backends_that_are_named(tmp_path, activation):
    from hssm.distribution_utils.onnx import make_jax_logp_funcs_from_onnx, make_pytensor_logp_from_onnx

    spec = make_spec(Network(name="lan", features="raw", hidden_layers=[8], activations=[activation]), get_model("ddm"))
    write_onnx(tmp_path / "model.onnx", spec, initial_weights(spec, 1), {})
    x = np.random.default_rng(1).normal(size=(40, 6))
    expected = run_onnx(tmp_path / "model.onnx", x)
    in_jax = make_jax_logp_funcs_from_onnx(tmp_path / "model.onnx", [True] * 4)[0]
    np.testing.assert_allclose(in_jax(x[:, 4:], *x[:, :4].T), expected, atol=1e-5)
    in_pytensor = make_pytensor_logp_from_onnx(tmp_path / "model.onnx")
    if "pytensor" in lanline.hssm.backends([activation]):
        np.testing.assert_allclose(in_pytensor(pt.constant(x[:, 4:]), *x[:, :4].T).eval(), expected, atol=1e-5)
    else:  # a missing operator, or a relu over all trials: it would be offered if it worked
        try:
            wrong = in_pytensor(pt.constant(x[:, 4:]), *x[:, :4].T).eval()
        except KeyError:
            return
        assert wrong.shape != expected.shape or not np.allclose(wrong, expected)


def test_data_without_rts_cannot_be_fitted_with_a_network(hssm_networks):
    """As docs/hssm.md says of this HSSM: once it can, the page and `lanline.hssm` have to follow."""
    (folder,) = hssm_networks.glob("results/*/networks/ddm-cpn-jax-s1")
    with pytest.raises(UserError, match="loglik_missing_data"):
        lanline.hssm.model_config(folder)
    description = lanline.hssm.read_description(folder)
    config = {key: description[key] for key in ("list_params", "bounds", "choices")}
    model = hssm.HSSM(
        simulated("ddm", DDM, 20)[["response"]],
        model="ddm",
        model_config={**config, "response": ("response",), "backend": "jax"},
        loglik=folder / "model.onnx",
        loglik_kind="approx_differentiable",
    )
    with pytest.raises(TypeError, match="different numbers of dimensions"):
        model.pymc_model.compile_logp(mode=Mode("py", "fast_compile"))(model.pymc_model.initial_point())
