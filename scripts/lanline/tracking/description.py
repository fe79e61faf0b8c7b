"""The text at the top of a training's run in MLflow: what it was made from, with links."""

from __future__ import annotations

from pathlib import Path

from lanline.sidecars import Dataset


def describe_training(dataset: Dataset, network_folder: Path) -> str:
    """Markdown with the way from a training to its data, and how to ask for all of it."""
    if dataset.run_id:
        made = f"[run {dataset.run_id}](#/experiments/{dataset.experiment_id}/runs/{dataset.run_id})"
    elif dataset.tracking_key:
        made = f"the run of experiment {dataset.experiment_name} with the tag `lanline.key` {dataset.tracking_key}"
    else:
        made = "no run in MLflow"
    return (
        f"Trained on {dataset.rows:,} rows in {dataset.files} files of model {dataset.model}.\n\n"
        f"- data set `{dataset.dataset_id}` (recipe `{dataset.lineage_id}`), made by {made}\n"
        f"- its files lie in `{dataset.folder}`; `files_used.json` says which were used for what\n"
        f"- the network's files: artifacts in `network`, made in `{network_folder}`; its evaluation: `evaluation`\n\n"
        f"Down to shard, seed, commit and machine: `lanline lineage {network_folder}`\n"
    )
