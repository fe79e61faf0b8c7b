"""`make mlflow-ui` on a real run, seen with a real browser: the trainings side by side, and a figure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from conftest import Workspace, clean_environment
from lanline.sidecars import TrainingSidecar
from mlflow_server import free_port, wait_until_healthy

pytest.importorskip("mlflow")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)"),
]
SETTINGS = "mlflow_tracking: true\ntracking: {uri: 'sqlite:///elsewhere/own.db'}"


@pytest.fixture(scope="module")
def finished(request, tmp_path_factory) -> Workspace:
    """Trainings in both frameworks, recorded in a store that only the configuration names: of config/quick.yaml, or,
    to be looked at in docs/, of the default run."""
    workspace = Workspace(tmp_path_factory.mktemp("looked-at"))
    (workspace / "elsewhere").mkdir()
    settings = workspace.overlay("settings.yaml", SETTINGS)
    if request.config.getoption("--pictures"):
        workspace.snakemake("--configfile", settings)
    else:
        workspace.quick(overlays=(settings,))
    return workspace


@pytest.fixture(scope="module")
def ui(finished) -> str:
    """Address of the pages that the command behind `make mlflow-ui` opens."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("lanline")), "ui", "--port", str(port)]
    with (finished / "ui.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--config", "config/config.yaml", "--config", "settings.yaml"],
            cwd=finished.folder,
            env=clean_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(address, finished / "ui.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def trainings(workspace: Workspace) -> list[TrainingSidecar]:
    names = ("ddm-lan-torch-s1", "ddm-lan-jax-s1")
    paths = [path for name in names for path in workspace.folder.glob(f"results/*/networks/{name}/run.json")]
    return [TrainingSidecar.read(path) for path in paths]


@pytest.fixture
def look(request, tmp_path) -> Callable[[str, str], str]:
    """Opens a page and waits for it; gives its DOM and saves what is seen, with --pictures in that folder."""
    folder = Path(request.config.getoption("--pictures") or tmp_path)

    def open_page(url: str, picture: str) -> str:
        browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser += ["--window-size=1600,1000", "--virtual-time-budget=20000", f"--user-data-dir={tmp_path}/{picture}"]
        seen = [*browser, "--hide-scrollbars", f"--screenshot={folder / picture}.png", url]
        subprocess.run(seen, check=True, capture_output=True, timeout=120)
        with Image.open(folder / f"{picture}.png") as image:
            image.crop((0, 0, 1185, image.height)).save(folder / f"{picture}.png")  # MLflow's assistant is to the right
        assert (folder / f"{picture}.png").stat().st_size > 20_000
        return subprocess.run(
            [*browser, "--dump-dom", url], check=True, capture_output=True, text=True, timeout=120
        ).stdout

    return open_page


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


def test_the_trainings_are_listed_below_their_data_set(finished, ui, look):
    torch, jax = trainings(finished)
    dom = look(f"{ui}/#/experiments/{torch.experiment_id}/runs", "mlflow-runs")
    for text in (torch.name, jax.name):
        assert text in dom


def test_the_trainings_of_both_frameworks_are_compared(finished, ui, look):
    torch, jax = trainings(finished)
    page = (
        f"{ui}/#/compare-runs?runs=[%22{torch.run_id}%22,%22{jax.run_id}%22]&experiments=[%22{torch.experiment_id}%22]"
    )
    dom = look(page, "mlflow-comparison")
    for text in ("Comparing 2 Runs", torch.name, jax.name, "evaluation.mae"):
        assert text in dom


def test_a_training_shows_its_lineage_and_figures(finished, ui, look):
    torch, _ = trainings(finished)
    run = f"{ui}/#/experiments/{torch.experiment_id}/runs/{torch.run_id}"
    assert "agreement.png" in look(f"{run}/artifacts/evaluation/figures/agreement.png", "mlflow-figure")
    assert torch.dataset_id in look(run, "mlflow-run")  # the description
