"""What the run of a training says of its data set: ids as tags, MLflow's data set input, and a text with links."""

from __future__ import annotations

from pathlib import Path

from lanline.sidecars import DatasetSidecar
from lanline.tracking.journal.recorder import RunRecorder


def lineage_tags(dataset: DatasetSidecar) -> dict[str, str]:
    """Tags of a run that uses ``dataset``: its ids, as far as they are known. MLflow shows the data set's run as the
    parent of the trainings on it."""
    tags = {
        "dataset_id": dataset.dataset_id,
        "lineage_id": dataset.lineage_id,
        "data_generation_experiment_id": dataset.experiment_id,
        "data_generation_run_id": dataset.run_id,
        "mlflow.parentRunId": dataset.run_id,
    }
    return {tag: value for tag, value in tags.items() if value is not None}


def lineage_links(dataset: DatasetSidecar) -> dict[str, str]:
    """Links for the ids that MLflow has not given yet, because it was unreachable (see `open_run`)."""
    if dataset.tracking_uri is None or dataset.run_id is not None or dataset.tracking_key is None:
        return {}
    return {
        "data_generation_experiment_id": f"experiment:{dataset.experiment_name}",
        "data_generation_run_id": f"run:{dataset.tracking_key}",
        "mlflow.parentRunId": f"run:{dataset.tracking_key}",
    }


def log_training_data(run: RunRecorder, dataset: DatasetSidecar) -> None:
    """Record ``dataset`` as an input of ``run``."""
    source = str(Path(dataset.folder).resolve())
    tags = {"dataset_id": dataset.dataset_id, "lineage_id": dataset.lineage_id}
    profile = {"rows": dataset.rows, "files": dataset.files}
    run.log_dataset(f"{dataset.model}-data", dataset.dataset_id, source, "training", tags=tags, profile=profile)


def describe_training(dataset: DatasetSidecar, folder: Path) -> str:
    """The text at the top of a training's run in MLflow (Markdown): what the network in ``folder`` was made from."""
    if dataset.run_id:
        made = f"[run {dataset.run_id}](#/experiments/{dataset.experiment_id}/runs/{dataset.run_id})"
    elif dataset.tracking_key:
        made = f"the run of experiment {dataset.experiment_name} with the tag `lanline.key` {dataset.tracking_key}"
    else:
        made = "no run in MLflow"
    return (
        f"Trained on {dataset.rows:,} rows in {dataset.files} files of model {dataset.model}.\n\n"
        f"- data set `{dataset.dataset_id}` (recipe `{dataset.lineage_id}`), made by {made}\n"
        f"- its files are in `{dataset.folder}`; `files_used.json` says which were used for what\n"
        f"- the network's files: artifacts in `network`, made in `{folder}`; its evaluation: `evaluation`\n\n"
        f"Full lineage, down to shard, seed, commit and machine: `lanline lineage {folder}`\n"
    )
