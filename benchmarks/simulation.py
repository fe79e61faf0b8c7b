"""Labels from simulated trials: ssm-simulators' own generator and lanline, side by side in one process.

    python benchmarks/simulation.py compare [--models race_no_bias_angle_4 lca_no_bias_3 levy ddm_seq2_no_bias]
    python benchmarks/simulation.py registry [--models ...]
    python benchmarks/simulation.py kde [--models ...]

compare: CPU milliseconds per theta for 1000 labelled rows from 20,000 trajectories, and how far the trials that the
    labels come from are from trials of ssm-simulators with steps of 1e-4 s: the largest difference of distribution
    functions (of rt and choice, responses within 5 s), mean over thetas. "noise" is that of lanline to itself.
registry: one line of a table for each model: engine, largest step, CPU milliseconds per theta for lanline and the
    generator, at the thetas that the generator drew (exact engines: at 200 thetas, they take the same time at each).
kde: CPU milliseconds per theta of LogKDE and of lanline's estimate for the same 20,000 trials and 1000 points, and
    their largest difference where log f > -10.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from lanline.config import Data
from lanline.engines import densities, has_exact, resolve_engine, simulation
from lanline.engines.simulation import kde
from lanline.engines.simulation.trials import WITHOUT_STEPS
from lanline.models import Model, get_model, model_names
from lanline.theta import sample_theta

ROWS = 1000
TRAJECTORIES = 20_000
PEER_STEP, FINE_STEP = 1e-3, 1e-4
RESPONSE_WITHIN = 5.0
COMPARED = ["race_no_bias_angle_4", "lca_no_bias_3", "levy", "ddm_seq2_no_bias"]


def run_peer(model: Model, n_theta: int) -> tuple[float, np.ndarray]:
    """CPU seconds per theta of ssm-simulators' generator, as published networks were made with; its thetas."""
    from ssms.config import ModelConfigBuilder
    from ssms.config.generator_config.data_generator_config import get_lan_kde_config
    from ssms.dataset_generators.lan_mlp import TrainingDataGenerator

    config = get_lan_kde_config(model.name)
    config["pipeline"] |= {"n_parameter_sets": n_theta, "n_subruns": 1, "n_cpus": 1}
    config["simulator"] |= {"n_samples": TRAJECTORIES, "delta_t": PEER_STEP}
    config["training"] |= {"n_samples_per_param": ROWS}
    generator = TrainingDataGenerator(config, ModelConfigBuilder.from_model(model.name))
    start = time.process_time()
    made = generator.generate_data_training(save=False)
    seconds = time.process_time() - start
    theta = np.unique(made["lan_data"][:, : len(model.params)], axis=0)
    return seconds / n_theta, theta.astype(float)


def run_lanline(model: Model, theta: np.ndarray, engine: str = "auto") -> float:
    """CPU seconds per theta of the engine that ``data.engine: auto`` takes, for as many rows."""
    data, rng = Data(engine=engine, n_trajectories=TRAJECTORIES), np.random.default_rng(1)
    densities(model, theta[:1], data.model_copy(update={"n_trajectories": 10}), rng).sample(2, rng)  # compiles
    start = time.process_time()
    density = densities(model, theta, data, rng)
    rt, choice = density.sample(ROWS, rng)
    density.log_density(rt, np.nan_to_num(choice))
    return (time.process_time() - start) / len(theta)


def step_of(model: Model) -> str:
    if has_exact(model) or model.simulator in WITHOUT_STEPS:
        return ""
    return f"{simulation.step(model, 'continuous', Data().delta_t):g}"


def distance(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """Largest difference between two distribution functions of (rt, choice), mean over thetas."""
    largest = []
    for rt, choice, rt_2, choice_2 in zip(*first, *second, strict=True):
        differences = []
        for value in np.unique(np.concatenate([choice, choice_2])[~np.isnan(np.concatenate([choice, choice_2]))]):
            some, others = np.sort(rt[choice == value]), np.sort(rt_2[choice_2 == value])
            at = np.concatenate([some, others])
            below, below_2 = np.searchsorted(some, at, "right"), np.searchsorted(others, at, "right")
            differences.append(np.abs(below / len(rt) - below_2 / len(rt_2)).max())
        largest.append(max(differences))
    return float(np.mean(largest))


def compare(models: list[str], n_theta: int, trials: int) -> None:
    print("| model | ssm-simulators, ms | lanline, ms | ratio | distance of its trials | of lanline's | noise |")
    print("|---|---|---|---|---|---|---|")
    for name in models:
        model = get_model(name)
        peer_seconds, theta = run_peer(model, n_theta)
        seconds = run_lanline(model, theta, "simulation")
        limit = np.full(len(theta), RESPONSE_WITHIN)
        step = simulation.step(model, "continuous", PEER_STEP)
        runs = [
            simulation.simulate(model, theta, limit, target, delta_t, trials, seed)
            for seed, (target, delta_t) in enumerate(
                [("euler", FINE_STEP), ("euler", PEER_STEP), ("continuous", step), ("continuous", step)]
            )
        ]
        apart = [distance(runs[0], runs[1]), distance(runs[0], runs[2]), distance(runs[2], runs[3])]
        print(
            f"| {name} | {peer_seconds * 1e3:,.0f} | {seconds * 1e3:.1f} | {peer_seconds / seconds:,.0f} | "
            + " | ".join(f"{value:.4f}" for value in apart)
            + " |",
            flush=True,
        )


def estimate(models: list[str], n_theta: int) -> None:
    from ssms.support_utils.kde_class import LogKDE

    print("| model | LogKDE, ms | lanline, ms | ratio | largest difference |")
    print("|---|---|---|---|---|")
    for name in models:
        model, rng = get_model(name), np.random.default_rng(1)
        theta = sample_theta(model, n_theta, rng)
        limit = np.full(n_theta, Data().max_t)
        rt, choice = simulation.simulate(model, theta, limit, "euler", 5e-3, TRAJECTORIES, seed=1)
        theirs, ours, difference = 0.0, 0.0, []
        kde.fit(np.ones(2)).log_density(np.ones(2))  # compiles
        for responded, trials, chosen in zip(~np.isnan(rt), rt, choice, strict=True):
            trials, chosen = trials[responded], chosen[responded]
            points, at = rng.choice(trials, ROWS), rng.choice(model.choices, ROWS)
            simulated = {
                "rts": trials[:, None],
                "choices": chosen[:, None].astype(int),
                "metadata": {"possible_choices": list(model.choices), "n_samples": len(trials), "max_t": Data().max_t},
            }
            start = time.process_time()
            expected = LogKDE(simulated).kde_eval({"rts": points, "choices": at}, lb=-1e9)
            theirs += time.process_time() - start
            start = time.process_time()
            actual = np.full(ROWS, -np.inf)
            for value in model.choices:
                if (own := trials[chosen == value]).size:
                    rows = at == value
                    actual[rows] = kde.fit(own).log_density(points[rows]) + np.log(len(own) / len(trials))
            ours += time.process_time() - start
            counted = (expected > -10) & np.isin(at, chosen)
            difference.append(np.abs(actual - expected)[counted].max())
        print(
            f"| {name} | {theirs / n_theta * 1e3:,.0f} | {ours / n_theta * 1e3:.2f} | {theirs / ours:,.0f} | "
            f"{max(difference):.1e} |",
            flush=True,
        )


def registry(models: list[str], n_theta: int) -> None:
    print("| model | engine | largest step, s | lanline, ms | ssm-simulators, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for name in models:
        model = get_model(name)
        try:
            peer_seconds, theta = run_peer(model, n_theta)
            peer = f"{peer_seconds * 1e3:,.0f}"
        except ValueError as error:  # ssm-simulators' generator cannot sample the parameters of some of its models
            peer_seconds, theta, peer = (
                np.nan,
                sample_theta(model, n_theta, np.random.default_rng(1)),
                f"fails: {error}",
            )
        if has_exact(model):
            theta = sample_theta(model, 200, np.random.default_rng(1))
        seconds = run_lanline(model, theta)
        print(
            f"| {name} | {resolve_engine(model, Data())} | {step_of(model)} | {seconds * 1e3:.2f} | {peer} | "
            f"{peer_seconds / seconds:,.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["compare", "registry", "kde"])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--thetas", type=int, default=2)
    parser.add_argument("--trials", type=int, default=TRAJECTORIES, help="of compare, for the distances")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.command == "compare":
        compare(arguments.models or COMPARED, arguments.thetas, arguments.trials)
    elif arguments.command == "kde":
        estimate(arguments.models or ["ddm", *COMPARED], arguments.thetas)
    else:
        registry(arguments.models or model_names(), arguments.thetas)


if __name__ == "__main__":
    main()
