"""What the stages share: the checked configuration, the paths, and which runs the configuration asks for."""

import time
from itertools import product
from pathlib import Path

from snakemake.exceptions import WorkflowError

from lanline.cluster import folder

from lanline.cluster import resources as effort
from lanline.config import parse_config
from lanline.engine_facts import check_engines
from lanline.errors import UserError
from lanline.paths import Paths, run_name, shard_groups, shard_label
from lanline.fingerprints import stage_code, training_code

try:
    CONFIG = parse_config(config)
    check_engines(CONFIG)
except UserError as error:
    raise WorkflowError(str(error)) from None

PATHS = Paths(CONFIG.name)
STARTED = time.time()
MODELS = [entry.name for entry in CONFIG.models]
SHARDS = [shard_label(index) for index in range(CONFIG.data.shards)]
GROUPS, MEMBERS = shard_groups(CONFIG.data.shards, CONFIG.data.shards_per_job)


wildcard_constraints:
    model="[A-Za-z0-9_]+",
    network="[A-Za-z0-9_]+",
    framework="torch|jax",
    seed=r"\d+",
    group=rf"\d{{{len(GROUPS[0])}}}",


def runs(framework: str | None = None) -> list[str]:
    """Names of all trainings that the configuration asks for, of one framework or of all."""
    networks = [network.name for network in CONFIG.networks]
    frameworks = [framework] if framework else CONFIG.training.frameworks
    return [
        run_name(*combination) for combination in product(MODELS, networks, frameworks, CONFIG.training.seeds)
    ]


def asks(effort_of) -> dict:
    """Memory and time limit of a rule's jobs: see `lanline.cluster.resources`. Each attempt asks for more."""

    def part(name: str):
        return lambda wildcards, threads, attempt: attempt * getattr(
            effort_of(CONFIG, wildcards, threads), name
        )

    return {name: part(name) for name in ("mem_mb", "runtime")}


def training_input() -> dict:
    """What a training reads, in both frameworks."""
    return dict(
        shards=[PATHS.shard("{model}", shard) for shard in SHARDS],
        dataset=PATHS.dataset("{model}"),
        validation=PATHS.validation("{model}"),
        experiments=PATHS.experiments("{model}"),
    )


def training_output(framework: str) -> dict:
    """What a training writes."""
    run = run_name("{model}", "{network}", framework, "{seed}")
    return dict(
        onnx=PATHS.onnx(run),
        weights=PATHS.network_folder(run) / "weights.safetensors",
        network=PATHS.network_folder(run) / "network.json",
        history=PATHS.history(run),
        run=PATHS.run(run),
        config=PATHS.training_report(run) / "config.yaml",
        metrics=PATHS.training_report(run) / "metrics.json",
    )


def training_settings(wildcards) -> dict:
    """What decides the weights, other than the data; the lists of seeds and frameworks do not."""
    return {
        "network": CONFIG.network(wildcards.network).model_dump(exclude={"training"}),
        "training": CONFIG.training_of(wildcards.network).model_dump(
            exclude={"seeds", "frameworks", "checkpoint_minutes", "device"}
        ),
        "validation_shards": CONFIG.data.n_validation_shards,
    }


def take_folder() -> None:
    """Let no other Snakemake run here meanwhile, and do not start beside jobs of one that died."""
    try:
        folder.take(Path())
    except UserError as error:
        raise WorkflowError(str(error)) from None


def ask_for_the_store() -> None:
    """With tracking.on_outage: fail, let nothing be computed whose record could not be kept.

    open_experiments asks too, but runs once only; what it wrote is there when further shards are made.
    """
    if not (CONFIG.mlflow_tracking and CONFIG.tracking.on_outage == "fail"):
        return
    from lanline.tracking.mlflow.store import probe, store_of

    try:
        probe(store_of(CONFIG))
    except UserError as error:
        raise WorkflowError(f"{error}; tracking.on_outage is fail, so nothing is computed") from None


def bring_over_what_mlflow_missed() -> None:
    """Replay the records that are on disk only, and end the runs of jobs that were killed."""
    if not CONFIG.mlflow_tracking:
        return
    from lanline.tracking.mlflow.sync import sync
    from lanline.tracking.mlflow.store import StoreUnavailable, store_of

    try:
        print(*sync(PATHS.reports, store_of(CONFIG)), sep="\n")
    except StoreUnavailable as error:
        print(f"{error}; `make mlflow-sync` brings the record over later")
    except UserError as error:  # the workflow is done: what is wrong with its record does not undo that
        print(f"MLflow was not brought up to date: {error}")


def let_rules_be_targets(files_of_rule: dict[str, list]) -> None:
    """Let `snakemake train_jax` stand for all files of that rule that the configuration asks for.

    Snakemake refuses a rule with wildcards as a target. The settings with the targets reach the workflow object just
    after this file was parsed, so they are translated at that moment.
    """

    class Workflow(type(workflow)):
        def __setattr__(self, name, value):
            if name == "dag_settings" and value is not None:
                value.targets = {
                    file for target in value.targets for file in map(str, files_of_rule.get(target, [target]))
                }
            super().__setattr__(name, value)

    workflow.__class__ = Workflow
