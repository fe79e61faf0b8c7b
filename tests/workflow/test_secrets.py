"""A password in the tracking URI never shows in anything that a run leaves."""

import socket

import pytest

from conftest import Workspace

pytestmark = pytest.mark.workflow

PASSWORD = "s3cret-pAss%21word"


@pytest.fixture
def dead_server() -> str:
    """A tracking URI with credentials, of a port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://someone:{PASSWORD}@127.0.0.1:{free.getsockname()[1]}"


def leaks(folder, output: str, own: tuple[str, ...]) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in own]
    needles = (PASSWORD.encode(), PASSWORD.replace("%21", "!").encode())
    found = [str(path.relative_to(folder)) for path in files if any(word in path.read_bytes() for word in needles)]
    return found + (["what it printed"] if any(word.decode() in output for word in needles) else [])


@pytest.mark.parametrize("place", ["environment", "configuration"])
def test_nothing_shows_it(workspace: Workspace, dead_server, place):
    tracking = f"{{uri: '{dead_server}', on_outage: spool}}" if place == "configuration" else "{on_outage: spool}"
    settings = f"mlflow_tracking: true\ntracking: {tracking}\ntraining: {{frameworks: [torch]}}"
    workspace.overlay("settings.yaml", settings)
    variables = {"MLFLOW_TRACKING_URI": dead_server} if place == "environment" else {}
    output = workspace.quick(overlays=("settings.yaml",), **variables)
    assert "make mlflow-sync" in output  # it did try
    assert list((workspace / "reports").rglob("*.jsonl"))
    assert leaks(workspace.folder, output, own=("settings.yaml",)) == []
