"""The documents say what is so: examples run, options and tests that they name exist."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from conftest import ROOT
from lanline.commands.generate import main as generate
from lanline.commands.main import main as lanline
from lanline.commands.train import jaxtrain, torchtrain
from lanline.tracking.mlflow.store import resolve_store

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("[a-z]*/README.md")])
OF_PIP, OF_SLURM = "--no-deps --force-reinstall", "--me --gpus --gres --mail-type"
OF_SNAKEMAKE = "--cores --profile --unlock --rerun-incomplete --sdm --lint --configfile"
OF_OTHERS = {*OF_PIP.split(), *OF_SLURM.split(), *OF_SNAKEMAKE.split()}


def block(page: str, language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.S)[1]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "MPLBACKEND": "Agg"}


def python(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_the_base_experiment_example_runs(tmp_path):
    config = block("base-experiment.md", "yaml")
    (tmp_path / "experiment.yaml").write_text(config)
    python(block("base-experiment.md", "python"), tmp_path)
    report = tmp_path / "reports/my-experiment"
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["slope_error"] < 0.1
    assert yaml.safe_load((report / "config.yaml").read_text()) == yaml.safe_load(config)
    assert (report / "figures/fit.png").stat().st_size > 0
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("numerical-optimization")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["slope_error"] == pytest.approx(metrics["slope_error"])
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 300
    assert {"config.yaml", "metrics.json", "figures"} <= {a.path for a in client.list_artifacts(run.info.run_id)}
    # What the page on troubleshooting says to ask, on the same store.
    question = block("troubleshooting.md", "python").replace("ddm-training", "numerical-optimization")
    assert experiment.artifact_location in python(question, tmp_path)


def test_every_test_that_is_named_as_proof_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "tests/PROMISES.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert not [name for name in named if f"def {name}(" not in sources]


def options(application) -> set[str]:
    command = get_command(application)
    parts = [command, *getattr(command, "commands", {}).values()]
    params = [param for part in parts for param in part.params]
    return {name for param in params for name in (*param.opts, *param.secondary_opts)} | {"--help"}


def test_every_documented_option_exists():
    assert options(torchtrain) == options(jaxtrain)
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    known = options(torchtrain) | options(generate) | options(lanline) | OF_OTHERS
    known |= set(re.findall(r'add_argument\("(--[a-z-]+)"', benchmarks))
    for page in PAGES:
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())) - known
        assert not unknown, page
    # Those of the second seed, and those that its users have besides.
    assert options(torchtrain) >= {
        "--config-path",
        "--training-data-folder",
        "--networks-path-base",
        "--mlflow-on",
        "--mlflow-tracking-uri",
        "--mlflow-artifact-location",
        "--mlflow-run-id",
        "--data-generation-experiment-id",
        "--network-id",
        "--mlflow-run-name",
        "--mlflow-experiment-name",
        "--dry-run",
        "--export-onnx",
        "--no-export-onnx",
        "--seed",
        "--dl-workers",
        "--log-level",
        "-l",
        "--dataset-id",
    }


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(), re.M)
        assert set(named) <= targets, page


TRACKING = ("mlflow.db", "mlflow.db-shm", "mlflow.db-wal", "mlruns/x", "mlartifacts/x", ".mlflow/x")


def test_local_tracking_files_are_ignored_by_git():
    files = [*TRACKING, "reports/a/config.yaml", "reports/a/metrics.json", "reports/a/figures/f.png", "results/a"]
    # Where the examples of the commands write.
    files += ["mlflow_artifacts/x", "data/x", "networks/x", "modules/m/reports/a/config.yaml"]
    done = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout.split() == files


def test_make_clean_removes_the_tracking_store_and_keeps_results(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (*TRACKING, "results/r", "reports/r", "scripts/s.py", "tests/t.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    # The guard that asks for runs in progress needs no environment of its own: it is told where Python is.
    subprocess.run(
        ["make", "clean", f"BIN={Path(sys.executable).parent}"], cwd=tmp_path, check=True, capture_output=True
    )
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", "results/r", "reports/r", "scripts/s.py", "tests/t.py"}


def test_the_ui_opens_the_store_that_runs_are_written_to():
    """The command behind the target is opened for real in tests/browser."""
    command = ["make", "-n", "mlflow-ui", "--assume-old=.venv/.installed"]
    shown = subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True).stdout
    assert "lanline ui --port 5000 --config config/config.yaml" in shown


def test_an_artifact_location_with_a_scheme_is_passed_on():
    store = resolve_store("http://127.0.0.1:5000", "s3://my-bucket/mlflow-artifacts")
    assert store.artifact_location == "s3://my-bucket/mlflow-artifacts"
