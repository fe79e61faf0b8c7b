"""Where a network came from: the tree from its files down to shards, seeds, commit and machine.

    with trace("results/ddm/networks/ddm-lan-torch-s1") as lineage:
        print(lineage.tree.to_json(), lineage.verify())

What is on disk is read first (run sidecars, and the journals in reports/), then MLflow: either is enough, but where
a later run wrote over a file only MLflow's copy tells what was in it. An ONNX file alone leads there by the ids in its
metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lanline.dataset.inventory import ID_DIGITS, Inventory
from lanline.errors import UserError
from lanline.files import redact, sha256_json
from lanline.lineage.records import Records, open_records
from lanline.lineage.tree import Lineage, Node, TracedFile
from lanline.paths import INVENTORY, SHARD_RECORDS
from lanline.sidecars import TrainingSidecar
from lanline.tracking.journal.record import RecordedFile, RunRecord
from lanline.tracking.mlflow.store import Store, resolve_store

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_EVALUATION = "evaluation."


@contextmanager
def trace(target: str | Path, store: Store | None = None) -> Iterator[Lineage]:
    """The lineage of a network's folder, an ONNX file, or an MLflow run.

    Copies of artifacts that only MLflow has are there as long as the block runs.

    Args:
        target: folder, file, or run id.
        store: to query; default: that of MLFLOW_TRACKING_URI. Never the one that the network's sidecar names: anybody
            may have written it, and it would be sent this user's credentials.

    Raises:
        UserError: ``target`` is none of these, or nothing is recorded of it.
    """
    path = Path(target)
    if path.exists():
        identity, sidecar = _identity(path)
        asked = store or resolve_store()
        with open_records(_folders(path), asked) as records:
            key = identity.get("tracking_key")
            run = records.by_key(key) if key else None
            if run is None:
                if sidecar and sidecar.tracking_uri and not asked.is_named(sidecar.tracking_uri):
                    records.notes.append(
                        f"{path} says that its run is in {redact(sidecar.tracking_uri)}, which was not queried; "
                        "choose the store with --uri"
                    )
                records.notes.append(f"no record found of run {identity.get('run')} (key {key})")
            yield _Tracer(records).lineage(run, identity, path)
    elif _RUN_ID.fullmatch(str(target)):
        with open_records(_folders(Path()), store or resolve_store()) as records:
            run = records.by_run_id(str(target))
            if run is None:
                raise UserError("; ".join([f"no record found of run {target}", *records.notes]))
            yield _Tracer(records).lineage(run, {}, None)
    else:
        raise UserError(
            f"{target}: no such folder or file, and not an MLflow run id (32 hexadecimal digits). "
            "Expected the folder of a network, an ONNX file, or a run id"
        )


def _folders(path: Path) -> list[Path]:
    """Where journals may lie: reports/ of the working directory or of a folder above, or beside the network."""
    above = [path.resolve(), *path.resolve().parents]
    beside = [folder / "report" for folder in above[:2]]
    return [Path("reports"), *beside, *(folder / "reports" for folder in above)]


def _identity(path: Path) -> tuple[dict[str, str], TrainingSidecar | None]:
    """What a network's folder or ONNX file says of itself, and the folder's sidecar."""
    if path.is_dir():
        sidecar = TrainingSidecar.read(path / "run.json") if (path / "run.json").exists() else None
        network = path / "network.json"
        if sidecar is None and not network.exists():
            raise UserError(f"{path} is not the folder of a network: it has neither run.json nor network.json")
        identity = json.loads(network.read_text())["identity"] if network.exists() else {}
        if sidecar:
            of_sidecar = {"run": sidecar.name, **sidecar.model_dump(include={"tracking_key", "dataset_id"})}
            identity = {**{key: value for key, value in of_sidecar.items() if value}, **identity}
        return identity, sidecar
    return _onnx_metadata(path), None


def _onnx_metadata(path: Path) -> dict[str, str]:
    from lanline.networks.onnx_files import read_metadata

    identity = read_metadata(path)
    if "dataset_id" not in identity:
        raise UserError(f"{path} has no provenance metadata (not written by lanline)")
    return identity


class _Tracer:
    """Makes the tree from records."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.contradictions: list[str] = []

    def lineage(self, run: RunRecord | None, identity: Mapping[str, str], target: Path | None) -> Lineage:
        if run and run.tags.get("stage") == "data-generation":
            tree = self.dataset(run, {})
        elif run and "stage" not in run.tags and "dataset_id" not in run.tags:
            tree = self.run(run, f"{run.name} of {run.experiment}", ())
        else:
            tree = self.network(run, identity, target)
        return Lineage(tree, tuple(self.records.notes), tuple(self.contradictions))

    def network(self, run: RunRecord | None, identity: Mapping[str, str], target: Path | None) -> Node:
        files = [file for name, file in (run.files if run else {}).items() if name.startswith("network/")]
        if run and target and identity.get("dataset_id", run.tags.get("dataset_id")) != run.tags.get("dataset_id"):
            self.contradictions.append(
                f"{target}: names data set {identity['dataset_id']}, its run names {run.tags.get('dataset_id')}"
            )
        traced = tuple(_here(file, target) for file in files)
        facts: dict[str, Any] = {
            key: identity[key] for key in ("model", "network_type", "framework", "seed") if key in identity
        }
        if run:
            facts |= {"model": run.tags.get("model"), "network_type": run.params.get("network.network_type")}
            facts |= {"hidden_layers": run.params.get("network.hidden_layers"), "seed": run.params.get("seed")}
            facts["framework"] = run.tags.get("framework")
        ids = {"dataset_id": identity.get("dataset_id"), "lineage_id": identity.get("lineage_id")}
        name = run.name if run else identity.get("run", str(target))
        if run is None:
            self.contradictions.append(f"{target}: no record to compare it with")
            data = self.records.of_dataset(ids["dataset_id"]) if ids["dataset_id"] else None
            parts = [self.dataset(data, {}) if data else Node("data set", "not recorded here", _known(ids))]
            return Node("network", name, _known(facts), traced, tuple(parts))
        parts = [self.run(run, run.name, (self.training_data(run),))]
        if evaluation := _evaluation(run):
            parts.append(evaluation)
        return Node("network", name, _known(facts), traced, tuple(parts))

    def run(self, run: RunRecord, name: str, parts: tuple[Node, ...]) -> Node:
        kind = f"{run.tags['stage'].replace('-', ' ')} run" if "stage" in run.tags else "run"
        duration = (run.end_time - run.start_time) / 1000 if run.end_time else None
        facts = {
            "key": run.key,
            "mlflow_run_id": run.run_id,
            "experiment": run.experiment,
            "status": run.status,
            "reason": run.tags.get("reason"),
            "started": _time(run.start_time),
            "seconds": duration,
            "resumed": run.tags.get("resumed"),
            "superseded_by": run.tags.get("superseded_by"),
            "recorded_in": run.source,
        }
        return Node(kind, name, _known(facts), (), (_origin(run), _configuration(run), *parts))

    def training_data(self, run: RunRecord) -> Node:
        """The data set that a training used, with what each shard was used for."""
        tags = run.tags
        key = run.links.get("data_generation_run_id", "").removeprefix("run:")
        run_id, dataset_id = tags.get("data_generation_run_id"), tags.get("dataset_id", "")
        data = self.records.by_key(key) if key else None
        data = data or (self.records.by_run_id(run_id) if run_id else None)
        data = data or (self.records.of_dataset(dataset_id) if dataset_id else None)
        if data is not None:
            if data.tags.get("dataset_id") != dataset_id:
                self.contradictions.append(f"{run.name} used data set {dataset_id}, not that of run {data.name}")
            return self.dataset(data, self.uses(run))
        used = run.datasets[0] if run.datasets else None
        facts = {"dataset_id": dataset_id, **({"source": used.source, **used.profile} if used else {})}
        facts |= {use: [name for name, of in self.uses(run).items() if of == use] for use in ("training", "validation")}
        return Node("data set", f"{used.name if used else dataset_id} (made elsewhere)", _known(facts))

    def dataset(self, run: RunRecord, uses: Mapping[str, str]) -> Node:
        parts = [self.run(run, run.name, ())]
        facts = {key: run.tags.get(key) for key in ("model", "dataset_id", "lineage_id")}
        files: tuple[TracedFile, ...] = ()
        if recorded := run.files.get(INVENTORY):
            files = (_here(recorded, None),)
            parts += [node for node in (self.validation(run, recorded, facts["dataset_id"]),) if node]
            parts += self.shards(run, recorded, uses)
        return Node("data set", run.name, _known(facts), files, tuple(parts))

    def shards(self, run: RunRecord, recorded: RecordedFile, uses: Mapping[str, str]) -> list[Node]:
        """The shards in a data set's inventory: of its own only, never of one that replaced it on disk."""
        kept, dataset_id = self.records.as_recorded(run, INVENTORY), run.tags.get("dataset_id")
        if kept is None:
            self.contradictions.append(
                f"{recorded.shown} is not the inventory that {run.name} recorded: no shards are listed"
            )
            return []
        try:
            content = json.loads(kept.path.read_text())
            inventory = Inventory.from_json(content, kept.shown)
        except (OSError, ValueError) as error:
            self.contradictions.append(f"{kept.shown} cannot be read: {error}")
            return []
        if not inventory.dataset_id == dataset_id == sha256_json(content["files"])[:ID_DIGITS]:
            self.contradictions.append(
                f"{kept.shown} is not the inventory of data set {dataset_id}: no shards are listed"
            )
            return []
        folder, made, nodes = _data_folder(run, recorded.path), self.made(run), []
        for file in inventory.files:
            path = folder / file.file
            facts = {"used_for": uses.get(file.file), "seed": file.seed, "rows": file.rows, "bytes": file.bytes}
            facts |= made.get(file.file, {})
            traced = TracedFile(path, file.sha256, str(path))
            nodes.append(Node("shard", file.file, _known(facts), (traced,)))
        return nodes

    def validation(self, run: RunRecord, inventory: RecordedFile, dataset_id: str | None) -> Node | None:
        """The report on the data, from the run or beside the inventory."""
        kept = self.records.as_recorded(run, "validation.json")
        path = kept.path if kept else inventory.path.with_name("validation.json")
        if not path.exists():
            return None
        report = json.loads(path.read_text())
        if report.get("dataset_id") != dataset_id:
            return None  # of data that were there before, or after
        facts = {key: report[key] for key in ("compared_with", "files", "rows", "problems")}
        recorded = run.files.get("validation.json")
        files = (_here(recorded, None),) if recorded else ()
        return Node("validation", "passed" if report["passed"] else "FAILED", facts, files)

    def uses(self, run: RunRecord) -> dict[str, str]:
        """What a training used each file for."""
        kept = self.records.as_recorded(run, "files_used.json")
        if kept is None:
            return {}
        return {name: use for use, names in json.loads(kept.path.read_text()).items() for name in names}

    def made(self, run: RunRecord) -> dict[str, dict[str, Any]]:
        """By file: what each shard was made with, and where."""
        kept = self.records.as_recorded(run, SHARD_RECORDS)
        if kept is None:
            return {}
        return {
            record["file"]: {
                **{"engine": record["engine"], "host": record["host"], "slurm_job": record["job_id"]},
                **{f"version_{name}": version for name, version in record["versions"].items()},
            }
            for record in json.loads(kept.path.read_text())
        }


def _evaluation(run: RunRecord) -> Node | None:
    metrics = {name.removeprefix(_EVALUATION): value for name, value in run.metrics.items() if _EVALUATION in name}
    files = tuple(_here(file, None) for name, file in run.files.items() if name.startswith("evaluation/"))
    if not metrics and not files:
        return None
    facts = {"gate": run.tags.get("gate"), "reference": run.tags.get("reference"), **metrics}
    return Node("evaluation", run.tags.get("gate", ""), _known(facts), files)


def _origin(run: RunRecord) -> Node:
    """Machine, commit and libraries of a run."""
    libraries = {key.removeprefix("version."): value for key, value in run.tags.items() if key.startswith("version.")}
    facts = {
        "host": run.tags.get("host"),
        "slurm_job": run.tags.get("slurm_job_id"),
        "user": run.tags.get("mlflow.user"),
        "git_commit": run.tags.get("git_commit", "none (not a git checkout)"),
        **libraries,
    }
    return Node("made by", run.tags.get("host", "unknown machine"), _known(facts))


def _configuration(run: RunRecord) -> Node:
    recorded = run.files.get("config.yaml") or run.files.get("config/config.yaml")
    files = (_here(recorded, None),) if recorded else ()
    return Node("configuration", recorded.shown if recorded else "not kept", dict(run.params), files)


def _data_folder(run: RunRecord, inventory: Path) -> Path:
    """Where the shards lie: beside the inventory, if the whole folder was moved, else where they were made."""
    named = Path(run.params.get("data_output_folder", "data"))
    beside = [inventory.parent / named.name, inventory.parent]
    return next((folder for folder in beside if any(folder.glob("*.safetensors"))), named)


def _here(file: RecordedFile, target: Path | None) -> TracedFile:
    """The file that is asked about: its own copy, if the network lies elsewhere than where it was trained."""
    path = file.path
    if target is not None:
        there = target / path.name if target.is_dir() else target
        if there.exists() and (target.is_dir() or path.name == "model.onnx"):
            return TracedFile(there, file.sha256, str(there))
    return TracedFile(path, file.sha256, file.shown)


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None and value != []}


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
