"""The model registry on a real SQLite store and a real server: from the journal, once, and in order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lanline.commands.main import main
from lanline.errors import UserError
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.events import journals
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import position_file, read_position
from lanline.tracking.mlflow.registry import promote
from lanline.tracking.mlflow.store import Store, connect, resolve_store
from lanline.tracking.mlflow.sync import sync
from mlflow_server import MlflowServer

pytest.importorskip("mlflow")
NAME = "ddm-lan"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def store(request, tmp_path_factory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        yield resolve_store(f"sqlite:///{folder}/mlflow.db")
    else:
        with MlflowServer(folder) as server:
            server.start()
            yield resolve_store(server.uri)


@pytest.fixture
def name(request) -> str:
    """A network's name that no other test uses."""
    return f"{NAME}-{request.node.originalname}"


def train(folder: Path, store: Store, name: str) -> Path:
    """A run with a network that is then registered, as an evaluation does it. Gives its journal."""
    network = folder / "model.onnx"
    network.parent.mkdir(parents=True, exist_ok=True)
    network.write_text(f"network of {folder.name}")
    with open_run(folder, "n", "e", store=store) as run:
        run.log_artifact(network, "network")
    register(folder, store, name)
    return journals(folder)[-1]


def register(folder: Path, store: Store | None, name: str) -> None:
    with amend_run(folder, store) as run:
        run.register(name, "network", {"dataset_id": "d" * 16, "mae": "0.02", "framework": "torch"})


def versions(store: Store, name: str) -> dict[int, str]:
    return {int(v.version): v.run_id for v in connect(store).search_model_versions(f"name = '{name}'")}


def aliases(store: Store, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in connect(store).get_registered_model(name).aliases.items()}


def test_a_network_becomes_the_candidate_with_what_is_known_of_it(tmp_path, store, name):
    import mlflow

    run_id = read_position(train(tmp_path / "a", store, name)).run_id
    version = connect(store).get_model_version_by_alias(name, "candidate")
    assert version.run_id == run_id
    assert version.tags == {"dataset_id": "d" * 16, "mae": "0.02", "framework": "torch"}
    mlflow.set_tracking_uri(store.uri)
    there = mlflow.artifacts.download_artifacts(f"models:/{name}@candidate", dst_path=str(tmp_path / "there"))
    assert (Path(there) / "model.onnx").read_text() == "network of a"


def test_replaying_and_judging_again_make_no_second_version(tmp_path, store, name):
    journal = train(tmp_path / "a", store, name)
    run_id = read_position(journal).run_id
    newer = read_position(train(tmp_path / "b", store, name)).run_id
    position_file(journal).unlink()  # as after a kill before the position was written
    sync(tmp_path, store)
    register(tmp_path / "a", store, name)
    assert versions(store, name) == {1: run_id, 2: newer}
    assert aliases(store, name) == {"candidate": 2}


def test_a_network_that_passed_while_mlflow_was_away_is_registered_later(tmp_path, store, name):
    with open_run(tmp_path / "a", "n", "e", store=store):
        pass
    register(tmp_path / "a", None, name)
    assert versions(store, name) == {}
    sync(tmp_path, store)
    assert versions(store, name) == {1: read_position(journals(tmp_path / "a")[-1]).run_id}


def test_promote_moves_production(tmp_path, store, name, capsys):
    for folder in ("a", "b"):
        train(tmp_path / folder, store, name)
    assert promote(store, name, 1).before is None
    main(["promote", name, "--uri", store.uri], standalone_mode=False)
    assert capsys.readouterr().out == f"models:/{name}@production is version 2 (before: version 1)\n"
    assert aliases(store, name) == {"candidate": 2, "production": 2}
    with pytest.raises(UserError, match=r"no version 7 in .* only 1, 2"):
        promote(store, name, 7)
    with pytest.raises(UserError, match=f"Did you mean '{name}'"):
        promote(store, name[:-1])


def test_pruning_keeps_the_networks_in_use_and_their_data(tmp_path, store, name, capsys):
    def record(folder: str, experiment: str, **tags: str) -> str:
        with open_run(tmp_path / folder, folder, experiment, store=store, tags=tags) as run:
            pass
        return run.run_id

    data, other_data = record("data", name), record("other data", name)
    old, used = (record(folder, name, data_generation_run_id=data) for folder in ("old", "used"))
    for folder in ("old", "used"):
        register(tmp_path / folder, store, name)
    promote(store, name, 2)
    main(["prune", name, "--yes", "--uri", store.uri], standalone_mode=False)
    printed = capsys.readouterr().out
    kept, removed = printed.split("kept", 1)[1].split("\n\n", 1)
    assert used in kept
    assert data in kept
    assert f"models:/{name}@candidate" in kept
    assert f"models:/{name}@production" in kept
    assert old in removed
    assert other_data in removed
    assert ("trash" if store.uri.startswith("http") else "removed 2 runs and their artifacts") in removed
    client = connect(store)
    left = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert {run.info.run_id for run in left} == {used, data}
    main(["prune", name, "--yes", "--uri", store.uri], standalone_mode=False)
    assert "nothing to remove" in capsys.readouterr().out
