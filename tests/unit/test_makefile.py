"""What `make` promises: every target is listed, and cleaning removes what it says and nothing else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


def test_clean_removes_tracking_and_never_results(folder):
    assert make(folder, "clean").returncode == 0
    assert not any((folder / name).exists() for name in TRACKING)
    assert all((folder / name).exists() for name in KEPT)


def test_clean_results_asks_first(folder):
    assert make(folder, "clean-results", answer="n\n").returncode != 0
    assert all((folder / name).exists() for name in KEPT)
    assert make(folder, "clean-results", answer="y\n").returncode == 0
    assert not (folder / "results").exists()
    assert (folder / "config/config.yaml").exists()


def test_clean_results_can_be_forced(folder):
    assert make(folder, "clean-results", "FORCE=1").returncode == 0
    assert not (folder / "reports").exists()
