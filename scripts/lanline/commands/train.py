"""``lanline train``: one network from a folder of training data, with or without MLflow.

``jaxtrain`` and ``torchtrain``, LANfactory's names, are the same command for one framework.
"""

from __future__ import annotations

import inspect
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lanline.cluster.cores import usable_cores
from lanline.commands.options import (
    MAX_SEED,
    ArtifactLocation,
    ExperimentName,
    LogLevel,
    MlflowOn,
    RunName,
    TrackingOptions,
    TrackingUri,
    app,
    command,
)

HELP = """Train a likelihood network{framework}.

The data: --training-data-folder alone (traditional mode), --data-generation-experiment-id alone (MLflow-first: MLflow
names the folder), or both (validation mode: the folder is compared with MLflow's record). Files are lanline's shards
or ssm-simulators' pickles.
"""


def train(
    framework: Annotated[Literal["torch", "jax"], typer.Option(help="PyTorch or JAX.")],
    networks_path_base: Annotated[
        Path, typer.Option(help="Folder for networks; they go to <base>/<network type>/<model>/.")
    ],
    config_path: Annotated[
        Path | None, typer.Option(help="YAML file, LANfactory's or lanline's. Default: lanline's defaults.")
    ] = None,
    training_data_folder: Annotated[Path | None, typer.Option(help="Folder of the training data.")] = None,
    network_id: Annotated[int, typer.Option(help="Which of the file's networks, counted from 0.")] = 0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_SEED, help="Of initial weights and row order. Default: the file's, then 1."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use. Default: all.")] = None,
    dl_workers: Annotated[
        int | None,
        typer.Option(help="Accepted for LANfactory's sake, no effect: lanline reads ahead in one thread."),
    ] = None,
    export_onnx: Annotated[bool, typer.Option(help="Whether to keep the network as model.onnx.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything; train and write nothing.")] = False,
    mlflow_on: MlflowOn = False,
    mlflow_tracking_uri: TrackingUri = None,
    mlflow_artifact_location: ArtifactLocation = None,
    mlflow_experiment_name: ExperimentName = None,
    mlflow_run_name: RunName = None,
    mlflow_run_id: Annotated[
        str | None, typer.Option(help="Resume an unfinished MLflow run; turns tracking on.")
    ] = None,
    data_generation_experiment_id: Annotated[
        str | None, typer.Option(help="MLflow experiment with the data's record; turns tracking on.")
    ] = None,
    dataset_id: Annotated[
        str | None, typer.Option(help="Which data set of that experiment, if it has several.")
    ] = None,
    accept_data_problems: Annotated[
        bool,
        typer.Option("--accept-data-problems", help="Train although the data fail validation; the records say so."),
    ] = False,
    log_level: LogLevel = "WARNING",
) -> None:
    with command(log_level):
        from lanline.commands.data_source import DataOptions
        from lanline.commands.training import Output, run_training
        from lanline.commands.training_plan import read_plan
        from lanline.logs import say

        if dl_workers is not None:
            say(f"--dl-workers {dl_workers} has no effect: lanline reads ahead in one thread (see also --threads)")
        run_training(
            read_plan(config_path, framework, network_id, seed),
            DataOptions(training_data_folder, data_generation_experiment_id, dataset_id, accept_data_problems),
            TrackingOptions(
                on=mlflow_on or data_generation_experiment_id is not None,
                uri=mlflow_tracking_uri,
                artifact_location=mlflow_artifact_location,
                experiment=mlflow_experiment_name,
                run_name=mlflow_run_name,
                run_id=mlflow_run_id,
            ),
            Output(networks_path_base, threads or usable_cores(), export_onnx),
            dry_run,
        )


def _for_framework(framework: Literal["torch", "jax"]) -> typer.Typer:
    """`train` without its option --framework."""
    options = inspect.signature(train, eval_str=True).parameters.values()

    @wraps(train)
    def alias(**given: Any) -> None:
        train(framework=framework, **given)

    alias.__signature__ = inspect.Signature([option for option in options if option.name != "framework"])  # type: ignore[attr-defined]
    application = app()
    application.command(help=HELP.format(framework={"torch": " in PyTorch", "jax": " in JAX"}[framework]))(alias)
    return application


jaxtrain = _for_framework("jax")
torchtrain = _for_framework("torch")
