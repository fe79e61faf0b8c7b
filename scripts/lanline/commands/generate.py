"""``lanline generate`` (also ``generate``): a data set outside the workflow, by the stages of the workflow's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def generate(
    output: Annotated[Path, typer.Option(help="Folder for the files.")],
    config_path: Annotated[
        Path | None, typer.Option(help="YAML file, ssm-simulators' or lanline's. Default: lanline's defaults for ddm.")
    ] = None,
    n_files: Annotated[
        int | None, typer.Option("--n-files", "-n", min=1, help="Number of files. Default: the file's data.shards.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the data. Default: the file's, then 42.")
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Files generated in parallel. Default: all cores.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything on a few rows; write nothing.")] = False,
    mlflow_on: MlflowOn = False,
    mlflow_tracking_uri: TrackingUri = None,
    mlflow_artifact_location: ArtifactLocation = None,
    mlflow_experiment_name: ExperimentName = None,
    mlflow_run_name: RunName = None,
    log_level: LogLevel = "WARNING",
) -> None:
    """Generate a data set of one model: shards, their inventory, and with MLflow the run that training commands find.

    The same configuration and seed give the same bytes; a larger --n-files adds files to those that exist.
    """
    with command(log_level):
        from lanline.commands.generating import read_config, run_generation

        tracking = TrackingOptions(
            on=mlflow_on,
            uri=mlflow_tracking_uri,
            artifact_location=mlflow_artifact_location,
            experiment=mlflow_experiment_name,
            run_name=mlflow_run_name,
        )
        config = read_config(config_path, n_files, seed, tracking)
        run_generation(config, output, cores or usable_cores(), mlflow_run_name, dry_run)


main = app()
main.command()(generate)
