"""What `make` promises: every target is listed, and cleaning removes what it says and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from lanline.cluster.folder import _lock
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow.store import Store

TRACKING = ["mlflow.db", "mlflow.db-wal", "mlruns/0/meta.yaml", "mlartifacts/1/a", ".mlflow/x"]
KEPT = ["results/ddm/networks/n/model.onnx", "reports/ddm/summary.md", "config/config.yaml"]


def make(folder: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=folder, input=answer, text=True, capture_output=True)


@pytest.fixture
def folder(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "scripts").mkdir()
    for name in [*TRACKING, *KEPT]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", text, re.M)).split()
    listed = re.findall(r"^  make ([\w-]+)", make(ROOT, "help").stdout, re.M)
    assert sorted(listed) == sorted(phony)


@pytest.fixture
def installed(folder):
    """The folder with a `lanline` in its environment."""
    program = folder / ".venv/bin/lanline"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\nfrom lanline.commands.main import main\nmain()\n")
    program.chmod(0o755)
    return folder


def test_clean_removes_tracking_and_never_results(installed):
    assert make(installed, "clean").returncode == 0
    assert not any((installed / name).exists() for name in TRACKING)
    assert all((installed / name).exists() for name in KEPT)
    assert make(installed, "clean").returncode == 0


def test_clean_refuses_where_nothing_tells_whether_runs_are_active(folder):
    done = make(folder, "clean")
    assert done.returncode != 0
    assert "make clean FORCE=1" in done.stderr
    assert all((folder / name).exists() for name in TRACKING)
    assert make(folder, "clean", "FORCE=1").returncode == 0
    assert not any((folder / name).exists() for name in TRACKING)
    assert make(folder, "clean").returncode == 0  # there is no store left that could be in use


@pytest.mark.parametrize("place", ["reports/ddm/training", "networks/lan/ddm/report", "data/report"])
def test_clean_refuses_while_a_run_goes_on(installed, place):
    with open_run(installed / place, "n", "e"):
        done = make(installed, "clean")
    assert done.returncode != 0
    assert "runs are still active" in done.stderr
    assert place in done.stderr
    assert all((installed / name).exists() for name in TRACKING)
    assert make(installed, "clean").returncode == 0


def test_clean_refuses_while_a_run_elsewhere_records_to_the_store(installed, tmp_path_factory, empty_database):
    """As of a training whose networks lie outside the project."""
    shutil.copy(empty_database, installed / "mlflow.db")
    store = Store(f"sqlite:///{installed}/mlflow.db", None)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with open_run(elsewhere / "networks/ddm/report", "n", "e", store=store):
        with open_run(elsewhere / "networks/angle/report", "n", "e", store=store):
            assert make(installed, "clean").returncode != 0
        done = make(installed, "clean")
        assert done.returncode != 0
        assert "are still active in a store" in done.stderr
        assert "fuser mlflow.db.runs" in done.stderr
        assert (installed / "mlflow.db").exists()
    assert make(installed, "clean").returncode == 0
    assert not (installed / "mlflow.db.runs").exists()


def test_clean_ignores_runs_of_a_store_elsewhere(installed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with open_run(elsewhere / "report", "n", "e", store=Store(f"sqlite:///{elsewhere}/mlflow.db", None)):
        assert make(installed, "clean").returncode == 0


def test_clean_refuses_while_a_workflow_runs(installed):
    with _lock(installed):  # as of a Snakemake that makes shards, which are no runs yet
        done = make(installed, "clean")
    assert done.returncode != 0
    assert "is in use by process" in done.stderr
    assert all((installed / name).exists() for name in TRACKING)
    assert make(installed, "clean").returncode == 0


def test_clean_results_asks_first(folder):
    assert make(folder, "clean-results", answer="n\n").returncode != 0
    assert all((folder / name).exists() for name in KEPT)
    assert make(folder, "clean-results", answer="y\n").returncode == 0
    assert not (folder / "results").exists()
    assert (folder / "config/config.yaml").exists()


def test_clean_results_can_be_forced(folder):
    assert make(folder, "clean-results", "FORCE=1").returncode == 0
    assert not (folder / "reports").exists()


def test_prune_can_be_told_not_to_ask():
    wanted = ["-n", "mlflow-prune", "EXPERIMENT=x", "OLDER_THAN=30d"]
    assert "--yes" not in make(ROOT, *wanted).stdout
    assert '"x" --older-than 30d --yes' in make(ROOT, *wanted, "YES=1").stdout
