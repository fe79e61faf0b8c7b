"""The best network per minute: config/production.yaml from nothing to evaluated networks, against HSSM's own.

    python benchmarks/quality.py [--models ddm angle] [--frameworks torch jax] [--cores 2]

Runs the workflow in this folder (results/production/) for what is not there yet, one training after the other on all
cores. Prints for each network the mean absolute error in log-likelihood over simulated trials, the minutes that its
labels and its training took, and the error of the network of that model that HSSM ships; and the minutes of all
together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

HSSM_MAE = {"ddm": 0.061, "angle": 0.085}  # its published networks, by the measure of lanline's evaluation


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

    print("network                MAE     HSSM's  ratio   labels  training  together")
    for network in json.loads((root / "reports/production/summary.json").read_text())["networks"]:
        model = network["name"].split("-")[0]
        records = (root / "results/production" / model / "data").glob("shard-*.json")
        labels = sum(json.loads(path.read_text())["seconds"] for path in records) / 60
        training = network["training_seconds"] / 60
        ratio = HSSM_MAE[model] / network["mae"]
        print(
            f"{network['name']:21}  {network['mae']:.4f}  {HSSM_MAE[model]:.3f}   {ratio:4.1f}  "
            f"{labels:5.1f} min  {training:4.1f} min  {labels + training:4.1f} min"
        )
    print(f"the workflow took {minutes:.1f} min on {arguments.cores} cores (what was there already took none)")


if __name__ == "__main__":
    main()
