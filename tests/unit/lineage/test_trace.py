"""Whose data a network's lineage shows, once another data set has taken the place of its own on disk."""

import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from lanline.commands.lineage import print_lineage
from lanline.dataset.inventory import build_inventory
from lanline.files import write_json
from lanline.lineage.trace import trace
from lanline.lineage.tree import Lineage
from lanline.paths import INVENTORY, SHARD_RECORDS
from lanline.sidecars import ShardSidecar, TrainingSidecar
from lanline.stages.record_lineage import DatasetRecord, record_dataset
from lanline.tracking.journal.opening import open_run
from lanline.tracking.mlflow.store import Store, resolve_store

pytest.importorskip("mlflow")


def train(store: Store | None, seed: int) -> Path:
    """Data of one shard and a network on it, under the names of those before. Gives the network's folder."""
    record = ShardSidecar(
        **{"file": "shard-0.safetensors", "model": "ddm", "shard": 0, "rows": 100, "bytes": 1, "seed": seed},
        **{"sha256": f"{seed:064}", "lineage_id": "l" * 16, "engine": f"engine {seed}", "seconds": 1.0},
        **{"versions": {}, "host": "here", "job_id": None},
    )
    inventory = build_inventory([record])
    write_json(Path("results", INVENTORY), inventory.to_json())
    write_json(Path("results", SHARD_RECORDS), [record.model_dump()])
    made = DatasetRecord(
        inventory,
        Path("results/data"),
        params={"seed": seed},
        artifacts={Path("results", INVENTORY): "", Path("results", SHARD_RECORDS): ""},
        experiment="ddm-data-generation",
        name=f"ddm-data-{inventory.dataset_id[:8]}",
    )
    data = record_dataset(made, Path("reports/data"), store)
    tags = {"stage": "training", "dataset_id": inventory.dataset_id}
    links = {"data_generation_run_id": f"run:{data.key}"}
    params = {"used": seed}
    with open_run(Path("reports/t"), "n", "ddm-training", store=store, tags=tags, links=links, params=params) as run:
        uses = {"training": ["shard-0.safetensors"], "validation": []}
        write_json(Path("reports/t/files_used.json"), uses if seed == 1 else {"training": [], "validation": uses})
        run.log_artifact(Path("reports/t/files_used.json"))
    of_data = dict.fromkeys(("data_generation_run_id", "data_generation_experiment_id"))
    TrainingSidecar(
        **{"name": "n", "model": "ddm", "network": "small", "network_type": "lan", "framework": "torch", "seed": 1},
        **{"dataset_id": inventory.dataset_id, "lineage_id": inventory.lineage_id, **of_data},
        **{"tracking_uri": store.shown if store else None, "experiment_id": None, "experiment_name": "ddm-training"},
        **{"run_id": run.run_id, "tracking_key": run.key},
    ).write(Path("results/network/run.json"))
    return Path("results/network")


@pytest.fixture(params=["tracked", "on disk only"])
def old_network(request, tmp_path, monkeypatch, empty_database) -> tuple[Path, bool]:
    """A network that was copied away before other data and another network took its place; whether MLflow knows it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracked = request.param == "tracked"
    if tracked:
        shutil.copy(empty_database, "mlflow.db")
    store = resolve_store() if tracked else None
    copy = Path(shutil.copytree(train(store, seed=1), "elsewhere"))
    train(store, seed=2)
    return copy, tracked


def shards(lineage: Lineage) -> list[tuple]:
    found = [node for node in lineage.tree.walk() if node.kind == "shard"]
    return [(s.facts["seed"], s.facts["engine"], s.facts.get("used_for"), s.files[0].sha256) for s in found]


def test_a_network_never_gets_the_shards_of_a_later_data_set(old_network):
    copy, tracked = old_network
    with trace(copy) as lineage:
        assert shards(lineage) == ([(1, "engine 1", "training", f"{1:064}")] if tracked else [])
        said = "\n".join([*lineage.notes, *lineage.contradictions])
        assert f"results/{INVENTORY}" in said
        assert ("using MLflow's copy" in said) == tracked
        assert ("no shards are listed" in said) == (not tracked)
    with trace("results/network") as lineage:
        assert [shard[0] for shard in shards(lineage)] == [2]
        assert lineage.contradictions == ()


def test_what_records_contradict_is_always_printed(old_network, capsys):
    copy, tracked = old_network
    print_lineage(str(copy))
    printed = capsys.readouterr().out
    assert "seed 2" not in printed
    assert ("no shards are listed" in printed) == (not tracked)
    print_lineage(str(copy), as_json=True)
    assert bool(json.loads(capsys.readouterr().out)["contradictions"]) == (not tracked)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "sqlite:///{folder}/other.sqlite"])
def test_a_network_from_elsewhere_decides_not_whom_a_question_goes_to(old_network, tmp_path, monkeypatch, uri):
    """The token is for the configured store alone, and no tables are made in somebody's database."""
    copy, tracked = old_network
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    shutil.rmtree("reports")
    with socket.create_server(("127.0.0.1", 0)) as server, sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE mine (x)")
        other.commit()
        before = (tmp_path / "other.sqlite").read_bytes()
        named = uri.format(port=server.getsockname()[1], folder=tmp_path)
        sidecar = json.loads((copy / "run.json").read_text())
        (copy / "run.json").write_text(json.dumps({**sidecar, "tracking_uri": named}))
        with trace(copy) as lineage:
            assert any(named in note for note in lineage.notes) == (not tracked)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert (tmp_path / "other.sqlite").read_bytes() == before


def test_a_key_with_a_quote_in_it_is_a_note(old_network):
    copy, _ = old_network
    sidecar = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**sidecar, "tracking_key": 'it\'s "one"'}))
    with trace(copy) as lineage:
        assert "is not an id or key" in "\n".join(lineage.notes)
