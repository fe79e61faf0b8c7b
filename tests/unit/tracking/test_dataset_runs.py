"""From a training to its data, through MLflow on a real SQLite store."""

import json
import shutil
from pathlib import Path

import pytest

from lanline.commands.lineage import print_lineage
from lanline.config import parse_config
from lanline.dataset.inventory import INVENTORY_VERSION, Inventory, TrackedFile, content_id
from lanline.errors import UserError
from lanline.paths import INVENTORY, Paths
from lanline.sidecars import DatasetSidecar
from lanline.stages.open_experiments import ExperimentsRequest, open_experiments
from lanline.stages.record_lineage import DatasetRecord, record_dataset
from lanline.stages.trained_on import lineage_links, lineage_tags, log_training_data
from lanline.stages.validate_training_data import tracked_inventory
from lanline.tracking.admin.prune import prune, select
from lanline.tracking.journal.amend import amend_run
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.position import read_position
from lanline.tracking.mlflow.dataset_runs import find_dataset_runs, read_inventory
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import Store, StoreUnavailable, connect, resolve_store
from lanline.tracking.mlflow.sync import sync

pytest.importorskip("mlflow")


@pytest.fixture
def store(tmp_path, empty_database) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return resolve_store(f"sqlite:///{tmp_path}/mlflow.db")


def files_of(sha256: str) -> list[dict]:
    return [{"file": "shard-0", "bytes": 1, "rows": 100, "sha256": sha256, "seed": 42}]


def id_of(sha256: str) -> str:
    return content_id(TrackedFile(**file) for file in files_of(sha256))


DATASET_ID = id_of("d" * 16)


def record_data(folder: Path, store: Store | None, sha256: str = "d" * 16) -> object:
    folder.mkdir(exist_ok=True)
    files, dataset_id = files_of(sha256), id_of(sha256)
    ids = {"model": "ddm", "dataset_id": dataset_id, "lineage_id": "l" * 16}
    (folder / INVENTORY).write_text(json.dumps({"inventory_version": INVENTORY_VERSION, **ids, "files": files}))
    record = DatasetRecord(
        Inventory("ddm", dataset_id, "l" * 16, tuple(TrackedFile(**file) for file in files)),
        folder / "data",
        params={"seed": 42},
        artifacts={folder / INVENTORY: ""},
        experiment="ddm-data-generation",
        name=f"ddm-data-{dataset_id[:8]}",
    )
    return record_dataset(record, folder, store)


def dataset_sidecar(run, store: Store) -> DatasetSidecar:
    return DatasetSidecar(
        model="ddm",
        dataset_id=DATASET_ID,
        lineage_id="l" * 16,
        folder="data",
        files=1,
        rows=100,
        tracking_uri=store.shown,
        experiment_id=run.experiment_id,
        experiment_name="ddm-data-generation",
        run_id=run.run_id,
        tracking_key=run.key,
    )


def test_lineage_from_a_training_to_its_data(tmp_path, store):
    data = record_data(tmp_path / "data", store)
    dataset = dataset_sidecar(data, store)
    with open_run(tmp_path / "t", "t", "ddm-training", store=store, tags=lineage_tags(dataset)) as training:
        log_training_data(training, dataset)
    assert lineage_links(dataset) == {}
    tracked = connect(store).get_run(training.run_id)
    assert tracked.data.tags["data_generation_run_id"] == tracked.data.tags["mlflow.parentRunId"] == data.run_id
    assert tracked.data.tags["data_generation_experiment_id"] == data.experiment_id
    assert tracked.inputs.dataset_inputs[0].dataset.digest == DATASET_ID
    # What MLflow holds counts, not the local copy.
    (tmp_path / "data" / INVENTORY).write_text("{}")
    inventory = read_inventory(store, tracked.data.tags["data_generation_run_id"])
    assert inventory["files"][0]["file"] == "shard-0"
    with pytest.raises(UserError, match=INVENTORY):
        read_inventory(store, training.run_id)


def test_the_live_data_set_of_an_experiment(tmp_path, store):
    record_data(tmp_path / "a", store)
    newer = record_data(tmp_path / "a", store)
    other = record_data(tmp_path / "b", store, "e" * 16)
    found = find_dataset_runs(store, newer.experiment_id)
    assert [run.run_id for run in found] == [other.run_id, newer.run_id]
    assert found[0].folder == str(tmp_path / "b" / "data")
    with pytest.raises(UserError, match="no experiment with id 99"):
        find_dataset_runs(store, "99")


def test_lineage_is_complete_after_an_outage(tmp_path, store, monkeypatch):
    def away(_: Store) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr("lanline.tracking.mlflow.mirror.connect", away)
        data = record_data(tmp_path / "data", store)
        dataset = dataset_sidecar(data, store)
        links = lineage_links(dataset)
        tags = lineage_tags(dataset)
        with open_run(tmp_path / "t", "t", "ddm-training", store=store, tags=tags, links=links) as training:
            log_training_data(training, dataset)
        assert (data.run_id, training.run_id) == (None, None)
        with pytest.raises(StoreUnavailable):
            sync(tmp_path, store)
    assert len(sync(tmp_path, store)) == 2
    ids = read_position(data.journal)
    recorded = connect(store).get_run(training.run_id).data.tags
    assert recorded["data_generation_run_id"] == recorded["mlflow.parentRunId"] == ids.run_id
    assert recorded["data_generation_experiment_id"] == ids.experiment_id
    assert read_inventory(store, ids.run_id)["files"][0]["sha256"] == "d" * 16
    assert sync(tmp_path, store) == []


def test_data_recorded_during_an_outage_are_compared_with_mlflow_once_it_has_them(tmp_path, store):
    data = record_data(tmp_path / "data", None)
    dataset, local = dataset_sidecar(data, store), tmp_path / "data" / INVENTORY
    assert dataset.run_id is None
    config = parse_config({"name": "x", "models": ["ddm"], "mlflow_tracking": True, "tracking": {"uri": store.uri}})
    assert tracked_inventory(config, dataset, local)[1] == str(local)
    run_id = mirror(data.journal, store).run_id
    local.write_text("{}")
    inventory, source = tracked_inventory(config, dataset, local)
    assert source == f"MLflow run {run_id}"
    assert inventory.dataset_id == dataset.dataset_id


def test_data_whose_run_is_gone_are_compared_with_the_inventory_on_disk(tmp_path, store, capsys):
    """As after `make clean`, which removes the store and keeps the data."""
    data = record_data(tmp_path / "data", store)
    dataset, local = dataset_sidecar(data, store), tmp_path / "data" / INVENTORY
    prune(store, select(store, "ddm-data-generation")[0])
    settings = {"name": "x", "models": ["ddm"], "mlflow_tracking": True}
    config = parse_config({**settings, "tracking": {"uri": store.uri}})
    inventory, source = tracked_inventory(config, dataset, local)
    assert (inventory.dataset_id, source) == (dataset.dataset_id, str(local))
    said = capsys.readouterr().err
    assert f"no longer has run {data.run_id}" in said
    assert "-R record_lineage" in said
    strict = parse_config({**settings, "tracking": {"uri": store.uri, "on_outage": "fail"}})
    with pytest.raises(UserError, match="-R record_lineage"):
        tracked_inventory(strict, dataset, local)


def test_the_environment_names_the_experiment_where_the_configuration_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def name(**settings):
        config = parse_config({"name": "x", "models": ["ddm"], **settings})
        return open_experiments(ExperimentsRequest(config, "ddm", Paths("x"))).training.name

    assert name() == "ddm-training"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from-environment")
    assert name() == "from-environment"
    assert name(mlflow_experiment_name="from-file") == "from-file"


def test_a_changed_artifact_of_the_store_is_found(tmp_path, store, monkeypatch, capsys):
    """With MLflow alone: no journal to ask, so MLflow has the hashes too."""
    tags = {"stage": "training", "dataset_id": "d1"}
    with open_run(tmp_path / "made", "n", "e", store=store, params={}, tags=tags) as run:
        for name in ("model.onnx", "weights.safetensors"):
            (tmp_path / name).write_text(name)
            run.log_artifact(tmp_path / name, "network")
    with amend_run(tmp_path / "made", store) as amended:
        (tmp_path / "errors.png").write_text("picture")
        amended.log_artifact(tmp_path / "errors.png", "evaluation")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run_id = run.run_id
    shutil.rmtree(tmp_path / "made")
    assert print_lineage(run_id, verify=True, uri=store.uri) == []
    assert "all 3 files match the record" in capsys.readouterr().out

    client = connect(store)
    artifacts = Path(client.get_run(run_id).info.artifact_uri)
    (artifacts / "network/model.onnx").write_text("another")
    (artifacts / "evaluation/errors.png").unlink()
    changed, gone = sorted(print_lineage(run_id, verify=True, uri=store.uri), reverse=True)
    assert "network/model.onnx (network): changed" in changed
    assert "evaluation/errors.png (evaluation): missing" in gone

    client.delete_tag(run_id, "lanline.sha256")  # as in runs of before
    capsys.readouterr()
    assert print_lineage(run_id, verify=True, uri=store.uri) == []
    printed = capsys.readouterr().out
    assert "2 file(s) have no recorded hash" in printed
    assert "the other 0 files match the record" in printed
