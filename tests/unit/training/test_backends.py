"""Both frameworks: the same steps, those of torch.optim, and no silent change of device."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from lanline.config import Activation, Network, Training
from lanline.errors import UserError
from lanline.models import get_model
from lanline.networks.initial import initial_weights
from lanline.networks.specification import forward, make_spec
from lanline.training.backend import flatten, start_backend, unflatten
from lanline.training.losses import loss_and_error
from lanline.training.schedule import Schedule

FRAMEWORKS = ["torch", "jax"]
STEPS = 100


def spec_with(activation="tanh"):
    return make_spec(
        Network(name="lan", features="raw", hidden_layers=[32, 24], activations=[activation] * 2), get_model("ddm")
    )


def batches(batch_size=200):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(STEPS, batch_size, 6)).astype(np.float32)
    y = np.sin(2 * x[..., 0]) + x[..., 1] * x[..., 4]
    return np.concatenate([x, y[..., None]], axis=-1)


def start(framework, settings, activation="tanh", threads=2):
    spec = spec_with(activation)
    return start_backend(framework, spec, settings, initial_weights(spec, 1), threads)


def take_steps(backend, block, rates):
    """Losses of one step for each batch of a block (k, b, D + L), whose rows do not lie in the order of the batches."""
    k, b = block.shape[:2]
    rows = np.ascontiguousarray(block.reshape(k * b, -1)[::-1])
    return backend.run_block(rows, np.arange(k * b)[::-1].reshape(k, b).copy(), rates)()


def rates(settings):
    return Schedule(settings, 2 * STEPS).rates(0, STEPS)


OPTIMIZERS = [
    {"optimizer": "adam", "weight_decay": 0.01},
    {"optimizer": "adamw", "weight_decay": 0.1, "gradient_clip": 0.01},
    {"optimizer": "adam", "gradient_clip": 1.0, "loss": "mse"},
    {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.01, "huber_delta": 1.0},
]


def network_in_torch():
    """The same network made of torch's own layers, with the same initial weights."""
    layers = [torch.nn.Linear(6, 32), torch.nn.Tanh(), torch.nn.Linear(32, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1)]
    weights = initial_weights(spec_with(), 1)
    for i, layer in enumerate(layers[::2]):
        layer.weight.data = torch.from_numpy(weights[f"layer_{i}.weight"].copy())
        layer.bias.data = torch.from_numpy(weights[f"layer_{i}.bias"].copy())
    return torch.nn.Sequential(*layers)


def losses_of_torch_itself(settings):
    """Losses of autograd, torch.nn.functional's losses and torch.optim's optimizers."""
    network = network_in_torch()
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[settings.optimizer]
    more = {"momentum": settings.momentum} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(network.parameters(), lr=1.0, weight_decay=settings.weight_decay, **more)
    losses = []
    for batch, rate in zip(torch.from_numpy(batches()), rates(settings), strict=True):
        output, y = network(batch[:, :-1])[:, 0], batch[:, -1]
        if settings.loss == "mse":
            loss = torch.nn.functional.mse_loss(output, y)
        else:
            loss = torch.nn.functional.huber_loss(output, y, delta=settings.huber_delta)
        optimizer.zero_grad()
        loss.backward()
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_steps_are_those_of_torch_autograd_and_torch_optim(framework, options):
    settings = Training(**options, batch_size=200)
    losses = take_steps(start(framework, settings), batches(), rates(settings))
    np.testing.assert_allclose(losses, losses_of_torch_itself(settings), rtol=1e-4)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_both_frameworks_make_the_same_steps_with_every_activation(activation):
    # With a narrow loss its gradient is a sign, and at a kink (relu) rounding decides.
    settings = Training(batch_size=200, huber_delta=0.1)
    ours = [take_steps(start(name, settings, activation), batches(), rates(settings)) for name in FRAMEWORKS]
    np.testing.assert_allclose(ours[0], ours[1], rtol=1e-4)


def probability_spec(model):
    network = Network(name="cpn", network_type="cpn", hidden_layers=[32, 24], activations=["tanh"] * 2)
    return make_spec(network, get_model(model))


def probability_batches(spec):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(STEPS, 200, len(spec.inputs))).astype(np.float32)
    logits = np.stack([3 * np.sin(x[..., i]) for i in range(len(spec.choices))], axis=-1)
    y = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return np.concatenate([x, y if spec.layers[-1] > 1 else y[..., 1:]], axis=-1).astype(np.float32)


def cross_entropies_of_torch_itself(spec, settings, block):
    layers = []
    weights = initial_weights(spec, 1)
    for i, (n_out, n_in) in enumerate(spec.shapes):
        layer = torch.nn.Linear(n_in, n_out)
        layer.weight.data = torch.from_numpy(weights[f"layer_{i}.weight"].copy())
        layer.bias.data = torch.from_numpy(weights[f"layer_{i}.bias"].copy())
        layers += [layer, torch.nn.Tanh()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1.0)
    losses = []
    for batch, rate in zip(torch.from_numpy(block), rates(settings), strict=True):
        x, y = batch[:, : len(spec.inputs)], batch[:, len(spec.inputs) :]
        if y.shape[1] == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x), y)
        else:
            loss = torch.nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("model", ["ddm", "race_3"])
def test_probability_networks_make_the_steps_of_torch_with_the_cross_entropy(framework, model):
    spec, settings = probability_spec(model), Training(batch_size=200)
    block = probability_batches(spec)
    backend = start_backend(framework, spec, settings, initial_weights(spec, 1), threads=2)
    losses = take_steps(backend, block, rates(settings))
    np.testing.assert_allclose(losses, cross_entropies_of_torch_itself(spec, settings, block), rtol=1e-4)
    x, y = block[0, :, : len(spec.inputs)], block[0, :, len(spec.inputs) :]
    outputs = backend.predict(x)
    assert outputs.shape == ((200,) if model == "ddm" else (200, 3))
    np.testing.assert_allclose(outputs, forward(spec, unflatten(spec, backend.state()["parameters"]), x), atol=1e-4)
    assert loss_and_error(spec, settings, outputs, y)[0].mean() < losses[0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("model", ["ddm", "race_3"])
def test_large_logits_have_finite_losses_and_gradients(framework, model):
    spec, settings = probability_spec(model), Training(batch_size=200)
    weights = initial_weights(spec, 1)
    weights["layer_2.weight"] *= 2000
    block = probability_batches(spec)[:1]
    backend = start_backend(framework, spec, settings, weights, threads=1)
    outputs = backend.predict(block[0, :, : len(spec.inputs)])
    assert np.abs(outputs).max() > 100
    expected = loss_and_error(spec, settings, outputs, block[0, :, len(spec.inputs) :])[0].mean()
    losses = take_steps(backend, block, np.array([1e-3], np.float32))
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(backend.state()["parameters"]).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("batch_size", [1, 1500])
def test_any_number_of_rows_and_threads(framework, batch_size):
    rng = np.random.default_rng(2)
    block = rng.normal(size=(3, batch_size, 7)).astype(np.float32)
    settings = Training(batch_size=batch_size)
    ours = [
        take_steps(start(framework, settings, threads=threads), block, np.full(3, 1e-3, np.float32))
        for threads in (1, 3)
    ]
    for other in ours[1:]:
        np.testing.assert_allclose(other, ours[0], rtol=1e-5)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_sum_over_devices_is_that_of_xla(threads, monkeypatch):
    import lanline.training.jax_sum

    assert lanline.training.jax_sum.REGISTERED
    settings = Training(batch_size=200)
    ours = start("jax", settings, threads=threads)
    monkeypatch.setattr(lanline.training.jax_sum, "REGISTERED", False)
    xlas = start("jax", settings, threads=threads)
    losses = [take_steps(backend, batches(), rates(settings)) for backend in (ours, xlas)]
    np.testing.assert_allclose(*losses, rtol=1e-6 if threads == 2 else 1e-4)


def test_what_a_gpu_is_given_makes_the_same_steps(monkeypatch):
    """On a device of the CPU: rows that stay there, and blocks that are gone through to their end."""
    import lanline.training.jax_backend as module

    cpu = module._devices("cpu", 1)
    monkeypatch.setattr(module, "_devices", lambda name, threads: cpu)
    backends = [start("jax", Training(batch_size=200, device=device), threads=1) for device in ("cpu", "gpu")]
    for backend in backends:
        losses = take_steps(backend, batches(), rates(Training(batch_size=200)))
        assert len(losses) == len(batches()) < backend._block_shape[0]
    one, other = (backend.state() for backend in backends)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-6)


def on_another_processor(monkeypatch):
    """There the threads of a PyTorch step meet at a barrier."""
    monkeypatch.setattr("platform.machine", lambda: "arm64")


def test_torch_makes_the_same_steps_on_every_processor(monkeypatch):
    settings = Training(batch_size=200)
    states = []
    for prepare in (lambda _: None, on_another_processor):
        prepare(monkeypatch)
        backend = start("torch", settings, threads=3)
        take_steps(backend, batches(), rates(settings))
        states.append(backend.state()["parameters"])
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("prepare", [lambda _: None, on_another_processor], ids=["x86", "others"])
@pytest.mark.parametrize("fails", ["a share", "starting a share"])
def test_no_thread_of_torch_waits_for_one_that_failed(fails, prepare, monkeypatch):
    prepare(monkeypatch)
    backend = start("torch", Training(batch_size=200), threads=3)
    index = np.arange(20_000).reshape(100, 200)
    if fails == "a share":
        index[40, -1] = 10**9
    else:
        submit, n = backend._pool.submit, iter(range(3))
        monkeypatch.setattr(backend._pool, "submit", lambda *a: submit(*a) if next(n) < 2 else sys.exit("stop"))
    with pytest.raises((IndexError, SystemExit), match=r"out of range|stop"):
        backend.run_block(batches().reshape(20_000, -1), index, np.full(100, 1e-3, np.float32))()
    ended = threading.Thread(target=backend._pool.shutdown, daemon=True)
    ended.start()
    ended.join(timeout=60)
    assert not ended.is_alive()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_predict_is_the_networks_forward_pass(framework):
    x = np.random.default_rng(1).normal(size=(40_000, 6)).astype(np.float32)
    weights = initial_weights(spec_with(), 1)
    backend = start(framework, Training())
    for n in (1000, 40_000):
        np.testing.assert_allclose(backend.predict(x[:n]), forward(spec_with(), weights, x[:n]), atol=1e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_backend_goes_with_its_last_user(framework):
    """And not when the garbage collector finds it: after JAX itself has gone, at the process's end, that is a crash."""
    gc.disable()
    try:
        backend = start(framework, Training(batch_size=200))
        take_steps(backend, batches(), np.full(STEPS, 1e-3, np.float32))
        gone = weakref.ref(backend)
        del backend
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_restored_state_goes_on_bit_for_bit(framework):
    settings = Training(learning_rate=0.01, batch_size=200)
    block, steps = batches(), rates(settings)
    one, two = start(framework, settings), start(framework, settings)
    take_steps(one, block[:50], steps[:50])
    two.restore(one.state(), 50)
    for backend in (one, two):
        take_steps(backend, block[50:], steps[50:])
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, two.state()[name])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_smaller_batch_counts_only_its_own_rows(framework):
    """Also in JAX, which fills a small batch up to the compiled size."""
    settings = Training(batch_size=200)
    full, small = batches()[:4], batches()[4:5, :33]
    backend = start(framework, settings)
    take_steps(backend, full, np.full(4, 1e-3, np.float32))
    loss = take_steps(backend, small, np.full(1, 1e-3, np.float32))
    fresh = start(framework, settings)
    take_steps(fresh, full, np.full(4, 1e-3, np.float32))
    error = np.abs(fresh.predict(small[0, :, :-1]) - small[0, :, -1])
    clipped = np.minimum(error, settings.huber_delta)
    assert loss[0] == pytest.approx((clipped * (error - clipped / 2)).mean(), rel=1e-5)


def torch_parameters(activation):
    backend = start("torch", Training(batch_size=200), activation)
    take_steps(backend, batches()[:10], np.full(10, 1e-3, np.float32))
    return backend.state()["parameters"]


@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_torch_without_torchscript_makes_the_same_steps(activation, tmp_path):
    code = "import sys, numpy, test_backends as t; numpy.save(sys.argv[2], t.torch_parameters(sys.argv[1]))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTORCH_JIT": "0", "PYTHONPATH": paths}
    command = [sys.executable, "-c", code, activation, tmp_path / "parameters.npy"]
    subprocess.run(command, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "parameters.npy"), torch_parameters(activation))


def test_weights_survive_flattening():
    weights = initial_weights(spec_with(), 1)
    again = unflatten(spec_with(), flatten(weights))
    assert list(again) == list(weights)
    assert all((again[name] == weights[name]).all() for name in weights)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_asking_for_a_gpu_that_is_not_there_is_an_error(framework):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="device is gpu"):
        start(framework, Training(device="gpu"))


def test_the_frameworks_do_not_import_each_other():
    for framework, other in (("torch", "jax"), ("jax", "torch")):
        code = (
            "import sys, lanline.training.loop; "
            "assert not {'torch', 'jax'} & set(sys.modules); "
            f"import lanline.training.{framework}_backend; assert '{other}' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
