"""`make mlflow-ui` on a real run, seen with a real browser: the trainings side by side, and a figure."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import Workspace, clean_environment
from lanline.sidecars import Run

pytest.importorskip("mlflow")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)"),
]
SETTINGS = "mlflow_tracking: true\ntracking: {uri: 'sqlite:///elsewhere/own.db'}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workspace:
    """Both trainings of config/quick.yaml, recorded in a store that only the configuration names."""
    workspace = Workspace(tmp_path_factory.mktemp("looked-at"))
    (workspace / "elsewhere").mkdir()
    workspace.quick(overlays=(workspace.overlay("settings.yaml", SETTINGS),))
    return workspace


@pytest.fixture(scope="module")
def ui(finished) -> str:
    """Address of the pages that the command behind `make mlflow-ui` opens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lanline.tracking", "--config", "config/config.yaml", "--config", "settings.yaml"]
    with (finished / "ui.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "ui", "--port", str(port)],
            cwd=finished.folder,
            env=clean_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, finished / "ui.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        time.sleep(0.5)
    pytest.fail(log.read_text())


def trainings(workspace: Workspace) -> list[Run]:
    names = ("ddm-lan-torch-s1", "ddm-lan-jax-s1")
    return [Run.read(workspace / f"results/quick/networks/{name}/run.json") for name in names]


def look(url: str, screenshot: Path) -> str:
    """Open a page and wait for it; gives its DOM and saves what is seen."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--window-size=1900,1100", "--virtual-time-budget=20000"]
    for_dom = [CHROMIUM, *options, f"--user-data-dir={screenshot.with_suffix('.dom')}", "--dump-dom", url]
    seen = [CHROMIUM, *options, f"--user-data-dir={screenshot.with_suffix('.seen')}", f"--screenshot={screenshot}", url]
    subprocess.run(seen, check=True, capture_output=True, timeout=120)
    return subprocess.run(for_dom, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_pages_are_of_the_store_that_the_configuration_names(finished, ui):
    request = urllib.request.Request(
        f"{ui}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 100}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        names = {experiment["name"] for experiment in json.load(answer)["experiments"]}
    assert {"ddm-data-generation", "ddm-training"} <= names
    assert not (finished / "mlflow.db").exists()


def test_the_trainings_of_both_frameworks_are_compared(finished, ui, tmp_path):
    torch, jax = trainings(finished)
    page = (
        f"{ui}/#/compare-runs?runs=[%22{torch.run_id}%22,%22{jax.run_id}%22]&experiments=[%22{torch.experiment_id}%22]"
    )
    dom = look(page, tmp_path / "comparison.png")
    for text in ("Comparing 2 Runs", torch.name, jax.name, "evaluation.mae"):
        assert text in dom
    assert (tmp_path / "comparison.png").stat().st_size > 20_000


def test_a_figure_opens_among_the_artifacts(finished, ui, tmp_path):
    torch, _ = trainings(finished)
    run = f"{ui}/#/experiments/{torch.experiment_id}/runs/{torch.run_id}"
    dom = look(f"{run}/artifacts/evaluation/figures/agreement.png", tmp_path / "figure.png")
    assert "agreement.png" in dom
    assert (tmp_path / "figure.png").stat().st_size > 20_000
    dom = look(run, tmp_path / "run.png")
    assert torch.dataset_id in dom  # the description
