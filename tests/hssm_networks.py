"""Small networks of every type for the tests on HSSM, made by the workflow, in JAX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from conftest import Workspace

# Narrower than the registry's bounds, and than HSSM's own: small networks learn them in seconds.
BOUNDS = {"v": [-2.0, 2.0], "a": [0.6, 2.0], "z": [0.3, 0.7], "t": [0.1, 0.6]}


def lan(width: int) -> dict[str, Any]:
    return {"name": "lan", "features": "raw", "hidden_layers": [width, width], "activations": ["tanh", "tanh"]}


def of_probabilities(kind: str) -> dict[str, Any]:
    """A network of parameters alone; its shards have few rows, so it sees them often."""
    training = {"epochs": 40, "learning_rate": 0.005}
    return {"name": kind, "network_type": kind, "hidden_layers": [32], "activations": ["tanh"], "training": training}


def configuration(name: str, models: list, networks: list, data: dict[str, int], epochs: int) -> dict[str, Any]:
    return {
        "name": name,
        "mlflow_tracking": False,
        "models": models,
        "networks": networks,
        "data": {"shards": 3, **data},
        "training": {"frameworks": ["jax"], "epochs": epochs, "batch_size": 500},
    }


def configurations() -> list[dict[str, Any]]:
    """The first one is good enough for fits; the others are for their inputs and outputs, and probabilities."""
    ddm = {"name": "ddm", "bounds": BOUNDS}
    deadline = {"name": "ddm_deadline", "bounds": {**BOUNDS, "deadline": [0.5, 2.0]}}
    many, few = {"thetas_per_shard": 5000, "rows_per_theta": 200}, {"thetas_per_shard": 5000, "rows_per_theta": 10}
    probabilities = [of_probabilities(kind) for kind in ("cpn", "gonogo")]
    omissions = [lan(16), of_probabilities("opn"), of_probabilities("gonogo")]
    return [
        configuration("fit", [ddm], [lan(64)], many, 8),
        configuration("choices", [ddm], probabilities, few, 1),
        configuration("deadline", [deadline], omissions, few, 1),
        configuration("four", ["race_no_bias_4"], [lan(16), of_probabilities("cpn")], few, 1),
    ]


def make_networks(workspace: Workspace) -> Path:
    """Run the workflow's trainings; gives the folder in which ``results/`` lies."""
    for values in configurations():
        workspace.snakemake("jax_networks", "--configfile", workspace.overlay("config.yaml", yaml.safe_dump(values)))
    return workspace.folder
