"""Posteriors of HSSM's own example data under several likelihoods, against the exact one.

    .venv-hssm/bin/python benchmarks/hssm.py results/ddm/networks/ddm-lan-jax-s1 --other ddm.onnx

fits cavanagh_theta, the data set that comes with HSSM, with a lan of ddm (its folder or file), with another ONNX file
of ddm, e.g. the one that HSSM downloads by default, and with HSSM's exact likelihood: four people, p_outlier 0.05,
NUTS of numpyro in float64, priors for all uniform within the lan's bounds. Prints for each parameter how far the
posterior mean lies from the exact one, in posterior standard deviations, and the ratio of the standard deviations; then
effective samples per second, seconds of sampling (compilation included), and the time of a gradient of the
log-likelihood relative to the other network's.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.remove(str(Path(__file__).resolve().parent))  # or `import hssm` would find this file

import arviz
import numpy as np

import hssm
from lanline.hssm import model_config

PARAMS = ("v", "a", "z", "t")
TARGET = 0.05  # posterior standard deviations


def example_data(people: int):
    data = hssm.load_data("cavanagh_theta")
    return data[data.participant_id.isin(data.participant_id.unique()[:people])].reset_index(drop=True)


def build(data, config: dict[str, Any], network: Path | None) -> hssm.HSSM:
    kind: dict[str, Any] = {"loglik_kind": "analytical"}
    if network:
        kind = {"loglik_kind": "approx_differentiable", "loglik": network}
    return hssm.HSSM(data, model="ddm", model_config=config, p_outlier=0.05, **kind)


def gradient_seconds(model: hssm.HSSM, repetitions: int) -> float:
    """Median seconds of the log-posterior's gradient, compiled by JAX as in sampling."""
    import jax
    from pymc.sampling.jax import get_jaxified_logp

    point = list(model.pymc_model.initial_point().values())
    gradient = jax.jit(jax.grad(get_jaxified_logp(model.pymc_model)))
    jax.block_until_ready(gradient(point))
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(gradient(point))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def fit(model: hssm.HSSM, draws: int) -> dict[str, Any]:
    start = time.perf_counter()
    trace = model.sample(
        sampler="numpyro", chains=2, cores=2, draws=draws, tune=draws, random_seed=1, progressbar=False
    )
    seconds = time.perf_counter() - start
    posterior = trace.posterior
    effective = min(float(arviz.ess(posterior[param].to_numpy())) for param in PARAMS)
    return {
        "mean": np.array([float(posterior[param].mean()) for param in PARAMS]),
        "sd": np.array([float(posterior[param].std()) for param in PARAMS]),
        "seconds": seconds,
        "effective": effective,
        "gradient": gradient_seconds(model, 200),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="a lan of ddm with hssm.json beside it")
    parser.add_argument("--other", type=Path, help="another ONNX file of ddm, e.g. HSSM's")
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1000, help="of each of two chains, after as many to tune")
    given = parser.parse_args()
    network = given.network / "model.onnx" if given.network.is_dir() else given.network
    config = model_config(network)
    if tuple(config["list_params"]) != PARAMS:
        sys.exit(f"{network} is of {', '.join(config['list_params'])}; expected a ddm")
    data = example_data(given.people)
    likelihoods = {"exact": None, "lanline": network} | ({"other": given.other} if given.other else {})
    found = {name: fit(build(data, config, path), given.draws) for name, path in likelihoods.items()}
    exact, base = found["exact"], found.get("other", found["lanline"])["gradient"]
    print(f"{len(data)} trials; distance of means in posterior sd, and ratio of sds (target: at most {TARGET})")
    print(f"{'':10}" + "".join(f"{param:>14}" for param in PARAMS) + "   ESS/s  seconds  gradient  relative")
    for name, values in found.items():
        distance = np.abs(values["mean"] - exact["mean"]) / exact["sd"]
        cells = "".join(f"{d:8.3f} {r:5.2f}" for d, r in zip(distance, values["sd"] / exact["sd"], strict=True))
        print(
            f"{name:10}{cells}  {values['effective'] / values['seconds']:6.0f}  {values['seconds']:7.1f}"
            f"  {1e3 * values['gradient']:5.2f} ms  {values['gradient'] / base:8.2f}"
        )


if __name__ == "__main__":
    main()
