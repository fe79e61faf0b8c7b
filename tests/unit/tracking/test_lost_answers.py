"""A server whose answers get lost: MLflow's client repeats its requests, and there is one run and one version all the
same."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import position_file, read_position
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import Store, connect, resolve_store
from mlflow_server import MlflowServer

pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow


class LossyProxy:
    """Forwards everything to a server on loopback, and drops the first answer to each kind of request in ``losing``."""

    def __init__(self, port: int, losing: set[bytes]) -> None:
        self._target, self._losing, self.lost = port, set(losing), []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request, its answer or none, and the end of the connection."""
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            request = _message(client)
            if not request:
                return
            head, _, body = request.partition(b"\r\n\r\n")
            server.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = b"".join(iter(lambda: server.recv(65536), b""))
            lost = next((kind for kind in self._losing if kind in head.split(b"\r\n")[0]), None)
            if lost is None:
                client.sendall(answer)
            else:
                self._losing.discard(lost)
                self.lost.append(lost)


def _message(client: socket.socket) -> bytes:
    """A whole request, its body by its length."""
    text = b""
    while b"\r\n\r\n" not in text:
        part = client.recv(65536)
        if not part:
            return b""
        text += part
    head, _, body = text.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while lengths and len(body) < int(lengths[0]):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path_factory.mktemp("server")) as server:
        server.start()
        yield server


def lossy(server: MlflowServer, losing: set[bytes]) -> tuple[LossyProxy, Store]:
    proxy = LossyProxy(server.port, losing)
    return proxy, resolve_store(proxy.uri)


def train(folder: Path, store: Store, name: str) -> object:
    (folder / "net.txt").parent.mkdir(parents=True, exist_ok=True)
    (folder / "net.txt").write_text("weights")
    with open_run(folder, name, name, store=store, params={"lr": 0.1}) as run:
        run.log_metrics({"loss": 0.5}, 1)
        run.log_artifact(folder / "net.txt", "network")
    return run


def test_a_lost_answer_makes_no_second_run(tmp_path, server):
    proxy, store = lossy(server, {b"runs/create"})
    first, second = train(tmp_path, store, "runs"), train(tmp_path, store, "runs")  # the same training, forced again
    proxy.close()
    assert proxy.lost == [b"runs/create"]
    client = connect(resolve_store(server.uri))
    found = client.search_runs([client.get_experiment_by_name("runs").experiment_id])
    assert {run.info.run_id for run in found} == {first.run_id, second.run_id}
    assert all(run.info.status == "FINISHED" and run.data.metrics == {"loss": 0.5} for run in found)


def test_of_two_runs_of_a_key_the_one_with_the_record_stays(tmp_path, server):
    """As an earlier lanline left them: of the same start time, one full and one empty."""
    store = resolve_store(server.uri)
    run = train(tmp_path, store, "doubles")
    client = connect(store)
    full = client.get_run(run.run_id)
    tags = {"lanline.key": run.key}
    for _ in range(3):
        client.create_run(full.info.experiment_id, start_time=full.info.start_time, tags=tags)
    position_file(run.journal).unlink()
    assert mirror(run.journal, store).run_id == full.info.run_id
    [left] = client.search_runs([full.info.experiment_id])
    assert left.info.run_id == full.info.run_id


def test_a_lost_answer_makes_no_second_version(tmp_path, server):
    proxy, store = lossy(server, {b"model-versions/create", b"registered-models/create", b"experiments/create"})
    run = train(tmp_path, store, "versions")
    with amend_run(tmp_path, store) as later:
        later.register("ddm-lan", "network", {"mae": "0.02"})
    proxy.close()
    assert len(proxy.lost) == 3
    versions = connect(resolve_store(server.uri)).search_model_versions("name = 'ddm-lan'")
    assert [(version.run_id, version.tags) for version in versions] == [(run.run_id, {"mae": "0.02"})]
    assert read_position(run.journal).pending_links == {}
