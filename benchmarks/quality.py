"""The best network per minute: config/production.yaml from nothing to evaluated networks, against HSSM's own.

    python benchmarks/quality.py [--models ddm angle] [--frameworks torch jax] [--cores 2]

Runs the workflow in this folder (results/production/) for what is not there yet, one training after the other on all
cores. Prints for each network the mean absolute error in log-likelihood over simulated trials, and that of the network
of that model that HSSM ships (as published); and the minutes of the jobs that led to it, as Snakemake measured them:
data with labels, lineage and validation, training, evaluation.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

HSSM_MAE = {"ddm": 0.061, "angle": 0.085}  # its published networks, by the measure of lanline's evaluation
DATA_RULES = ("open_experiments", "generate_shards", "record_lineage", "validate_training_data")


def job_minutes(root: Path, rule: str, start: str) -> float:
    """The sum of what the jobs of a rule took whose names start so."""
    files = (root / "logs/production" / rule).glob(f"{start}*.benchmark.tsv")
    tables = (csv.DictReader(file.read_text().splitlines(), delimiter="\t") for file in files)
    return sum(float(next(table)["s"]) for table in tables) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ddm", "angle"], choices=HSSM_MAE)
    parser.add_argument("--frameworks", nargs="+", default=["torch", "jax"], choices=["torch", "jax"])
    parser.add_argument("--cores", default="2")
    arguments = parser.parse_args()
    root = Path(__file__).parents[1]
    overlay = root / "results" / "production-part.yaml"
    overlay.parent.mkdir(exist_ok=True)
    overlay.write_text(yaml.safe_dump({"models": arguments.models, "training": {"frameworks": arguments.frameworks}}))
    workflow = [sys.executable, "-m", "snakemake", "--cores", arguments.cores]
    started = time.monotonic()
    subprocess.run([*workflow, "--configfile", "config/production.yaml", overlay], cwd=root, check=True)
    minutes = (time.monotonic() - started) / 60

    print("network                MAE     HSSM's  ratio      data  training  evaluation  together")
    for network in json.loads((root / "reports/production/summary.json").read_text())["networks"]:
        name, framework = network["name"], network["framework"]
        model = name.split("-")[0]
        data = sum(job_minutes(root, rule, model) for rule in DATA_RULES)
        training = job_minutes(root, f"train_{framework}", name.replace(f"-{framework}-", "-"))
        evaluation = job_minutes(root, "evaluate_network", name)
        print(
            f"{name:21}  {network['mae']:.4f}  {HSSM_MAE[model]:.3f}   {HSSM_MAE[model] / network['mae']:4.1f}  "
            f"{data:4.1f} min  {training:4.1f} min  {evaluation:6.1f} min  {data + training + evaluation:4.1f} min"
        )
    print(f"the workflow took {minutes:.1f} min on {arguments.cores} cores (what was there already took none)")


if __name__ == "__main__":
    main()
