"""The workflow as a user runs it, on config/quick.yaml, without tracking."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT, clean_environment
from lanline.files import sha256_file
from lanline.paths import Paths
from lanline.sidecars import DatasetSidecar, TrainingSidecar
from terminals import on_a_terminal

pytestmark = pytest.mark.workflow

RUNS = ("ddm-lan-torch-s1", "ddm-lan-jax-s1")


def planned(output: str) -> dict[str, int]:
    """Jobs of a dry run by rule."""
    table = output.rsplit("Job stats:", 1)[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def hashes(workspace) -> dict[str, str]:
    folder = workspace / "results/quick/ddm/data"
    return {path.name: sha256_file(path) for path in folder.glob("*.safetensors")}


def test_a_run_leaves_networks_reports_and_ids(finished_quick_run):
    dataset = DatasetSidecar.read(finished_quick_run / "results/quick/ddm/dataset.json")
    assert dataset.rows == 3 * 200 * 50
    assert dataset.run_id is None
    assert dataset.experiment_id is None
    for name in RUNS:
        run = TrainingSidecar.read(finished_quick_run / f"results/quick/networks/{name}/run.json")
        assert (run.dataset_id, run.lineage_id) == (dataset.dataset_id, dataset.lineage_id)
        assert run.run_id is None
        for stage in ("training", "evaluation"):
            report = finished_quick_run / f"reports/quick/{name}/{stage}"
            assert (report / "config.yaml").stat().st_size > 0
            assert json.loads((report / "metrics.json").read_text())
        assert list((finished_quick_run / f"reports/quick/{name}/evaluation/figures").glob("*.png"))
    summary = (finished_quick_run / "reports/quick/summary.md").read_text()
    assert all(name in summary for name in RUNS)
    assert not (finished_quick_run / "mlflow.db").exists()
    assert not (finished_quick_run / "mlruns").exists()


def test_every_job_leaves_a_log_and_a_benchmark(finished_quick_run):
    rules = {path.name for path in (finished_quick_run / "logs/quick").iterdir()}
    assert rules == {
        "open_experiments",
        "generate_shards",
        "record_lineage",
        "validate_training_data",
        "train_torch",
        "train_jax",
        "evaluate_network",
        "write_report",
    }
    for rule in rules:
        folder = finished_quick_run / "logs/quick" / rule
        assert list(folder.glob("*.log"))
        assert list(folder.glob("*.benchmark.tsv"))


def test_make_run_shows_a_line_for_each_job(workspace):
    """Its very command, on a terminal: no reasons, no lists of files, and all of these in the log that is named."""
    strict = workspace.overlay("strict.yaml", "evaluation: {gate: {max_mae: 1.0e-6}}")
    config = f"CONFIG=config/quick.yaml {strict}"
    command = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.installed", "run", "CORES=2", config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert command[0].endswith("/snakemake")
    code = f"import runpy, sys; sys.argv = {command}; runpy.run_module('snakemake', run_name='__main__')"
    shown = on_a_terminal(code, cwd=workspace.folder, env={**clean_environment(), "TERM": "xterm"})
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").splitlines()
    finished = [line for line in lines if re.match(r" *\d+/12 \w+ .*  \d+\.\d s$", line)]
    assert len(finished) == 11  # all but the rule that collects the others' files
    assert sum("train_torch" in line and "network=lan, seed=1" in line for line in finished) == 1
    assert "of 12 jobs" in shown  # while it ran
    assert "reason:" not in shown
    assert any(line.startswith("ddm-lan-torch-s1") and "FAILED: mae" in line for line in lines)
    [details] = {line.removeprefix("details: ") for line in lines if line.startswith("details: ")}
    assert "reason:" in (workspace / details).read_text()


def test_a_second_run_has_nothing_to_do(finished_quick_run):
    assert "Nothing to be done" in finished_quick_run.quick()


def test_make_run_goes_on_after_everything_was_killed(workspace):
    """As after a power cut: no process had the time to clean up."""
    longer = workspace.overlay("longer.yaml", "training: {epochs: 200, frameworks: [torch]}")
    makefile = (ROOT / "Makefile").read_text()
    flags = re.search(r"^SNAKEMAKE := .*?--cores \$\(CORES\) (.*?) \$", makefile, re.M)[1].split()
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/quick.yaml", longer]
    checkpoint = workspace.folder / Paths("quick").checkpoint("ddm-lan-torch-s1")
    with subprocess.Popen(
        command, cwd=workspace.folder, env=clean_environment(), start_new_session=True, stderr=subprocess.DEVNULL
    ) as first:
        while not checkpoint.exists():
            assert first.poll() is None
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
    assert "ncomplete files" in workspace.quick(overlays=(longer,), fails=True)
    assert "resuming from" in workspace.quick(*flags, overlays=(longer,))
    assert "Nothing to be done" in workspace.quick(*flags, overlays=(longer,))


@pytest.mark.parametrize(
    ("target", "rule", "jobs"),
    [
        ("experiments", "open_experiments", 1),
        ("shards", "generate_shards", 3),
        ("datasets", "record_lineage", 1),
        ("validations", "validate_training_data", 1),
        ("torch_networks", "train_torch", 1),
        ("jax_networks", "train_jax", 1),
        ("evaluations", "evaluate_network", 2),
    ],
)
def test_all_files_of_a_stage_are_a_target(workspace, target, rule, jobs):
    planned_jobs = planned(workspace.quick(target, "-n"))
    assert planned_jobs[rule] == jobs
    assert planned_jobs[target] == 1
    assert "all" not in planned_jobs
    assert "write_report" not in planned_jobs


def test_defaults_come_from_beside_the_snakefile(tmp_path):
    """In a working directory without config/config.yaml."""
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {shards: 2}\n")
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--configfile", "mine.yaml", "-n"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    assert jobs["generate_shards"] == 2
    assert jobs["train_torch"] == jobs["train_jax"] == 1  # the model and the frameworks are those of config.yaml
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("name: own\nmodels: [ddm, angle]\ntraining: {frameworks: [jax]}\n")
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), text=True, capture_output=True)
    jobs = planned(done.stdout + done.stderr)
    assert jobs["train_jax"] == 2
    assert "train_torch" not in jobs


def test_one_stage_runs_again_with_what_depends_on_it(quick_run):
    jobs = planned(quick_run.quick("-n", "-R", "train_jax"))
    assert jobs == {"train_jax": 1, "evaluate_network": 1, "write_report": 1, "all": 1}
    quick_run.quick("jax_networks", "-R", "train_jax")
    onnx = "results/quick/networks/ddm-lan-jax-s1/model.onnx"
    assert planned(quick_run.quick("-n", "-f", onnx)) == {"train_jax": 1}
    until = planned(quick_run.quick("-n", "-F", "-U", "validate_training_data"))
    assert set(until) == {"open_experiments", "generate_shards", "record_lineage", "validate_training_data"}


def test_a_new_shard_makes_only_that_shard(quick_run):
    before = hashes(quick_run)
    four = quick_run.overlay("four.yaml", "data: {shards: 4}")
    assert planned(quick_run.quick("-n", overlays=(four,)))["generate_shards"] == 1
    quick_run.quick("datasets", overlays=(four,))
    after = hashes(quick_run)
    assert len(after) == 4
    assert before.items() <= after.items()


def test_shards_are_the_same_bytes_on_one_core(finished_quick_run, workspace):
    workspace.quick("shards", cores=1)
    assert hashes(workspace) == hashes(finished_quick_run)


def test_shards_are_the_same_bytes_in_jobs_of_any_size(workspace):
    small = "data: {shards: 10, thetas_per_shard: 20, rows_per_theta: 5"
    one, ten = (
        workspace.overlay("one.yaml", small + "}"),
        workspace.overlay("ten.yaml", small + ", shards_per_job: 10}"),
    )
    workspace.quick("datasets", overlays=(ten,))
    together = hashes(workspace)
    assert len(together) == 10
    assert "Nothing to be done" in workspace.quick("datasets", overlays=(one,))
    assert not (workspace / "results/quick/ddm/unfinished").exists()
    folder = workspace / "results/quick/ddm/data"
    (folder / "shard-00004.safetensors").unlink()
    assert planned(workspace.quick("-n", "shards", overlays=(one,)))["generate_shards"] == 1
    workspace.quick("shards", overlays=(one,))
    assert hashes(workspace) == together


def test_another_seed_makes_other_data_and_leaves_other_networks_alone(quick_run):
    other = quick_run.overlay("other.yaml", "training: {seeds: [1, 2]}")
    jobs = planned(quick_run.quick("-n", overlays=(other,)))
    assert (jobs["train_torch"], jobs["train_jax"]) == (1, 1)
    assert "generate_shards" not in jobs
    reseeded = quick_run.overlay("reseeded.yaml", "seed: 5")
    assert planned(quick_run.quick("-n", overlays=(reseeded,)))["generate_shards"] == 3


def weights(workspace) -> dict[str, str]:
    folder = workspace / "results/quick/networks"
    return {path.parent.name: sha256_file(path) for path in folder.glob("*/weights.safetensors")}


def test_trainings_that_share_a_job_make_the_same_networks(quick_run):
    """Those of a job of their own, too, when some of them exist already."""
    alone = quick_run.overlay("alone.yaml", "training: {seeds: [1, 2, 3]}")
    shared = quick_run.overlay("shared.yaml", "training: {seeds: [1, 2, 3], seeds_per_job: all}")
    networks = ("torch_networks", "jax_networks")
    assert planned(quick_run.quick("-n", *networks, overlays=(shared,)))["train_torch"] == 1
    quick_run.quick(*networks, overlays=(shared,))
    made = weights(quick_run)
    assert len(made) == 6
    for name in made:
        assert TrainingSidecar.read(quick_run / f"results/quick/networks/{name}/run.json").name == name
        assert (quick_run / f"reports/quick/{name}/training/metrics.json").exists()
        assert name in (quick_run / f"logs/quick/train_{name.split('-')[2]}/ddm-lan.log").read_text()
    assert not list((quick_run / "results/quick/checkpoints").iterdir())
    assert "train_torch" not in quick_run.quick("-n", *networks, overlays=(alone,))  # the same files
    for name in ("ddm-lan-torch-s3", "ddm-lan-jax-s3"):
        shutil.rmtree(quick_run / f"results/quick/networks/{name}")
    jobs = planned(quick_run.quick("-n", *networks, overlays=(alone,)))
    assert (jobs["train_torch"], jobs["train_jax"]) == (1, 1)
    quick_run.quick(*networks, overlays=(alone,))
    assert weights(quick_run) == made


def test_a_job_that_was_killed_repeats_none_of_its_finished_trainings(quick_run):
    longer = quick_run.overlay(
        "longer.yaml", "training: {seeds: [1, 2, 3], seeds_per_job: all, epochs: 200, frameworks: [torch]}"
    )
    paths = Paths("quick")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "torch_networks"]
    with subprocess.Popen(
        [*command, "--configfile", "config/quick.yaml", longer],
        cwd=quick_run.folder,
        env=clean_environment(),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as first:
        while not (quick_run / paths.checkpoint("ddm-lan-torch-s2")).exists():
            assert first.poll() is None
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGTERM)
    assert not (quick_run / paths.onnx("ddm-lan-torch-s1")).exists()  # finished, and removed with the job's outputs
    quick_run.quick("torch_networks", "--rerun-incomplete", "--nolock", overlays=(longer,))
    log = (quick_run / "logs/quick/train_torch/ddm-lan.log").read_text()
    assert not re.search(r"ddm-lan-torch-s1: epoch \d", log)
    assert re.search("ddm-lan-torch-s1: resuming from .*: all epochs are done", log)
    assert "ddm-lan-torch-s2: resuming from" in log
    assert "ddm-lan-torch-s3: epoch 1/200 " in log
    assert len(weights(quick_run)) == 4  # the one of JAX is of the run before
    records = [quick_run / paths.training_report(f"ddm-lan-torch-s{seed}") / "journal" for seed in (1, 2, 3)]
    # A finished record is superseded, one that was killed is resumed; quick_run had one of seed 1 itself.
    assert [len(list(folder.glob("*.jsonl"))) for folder in records] == [3, 1, 1]
    assert not list((quick_run / "results/quick/checkpoints").iterdir())


def test_the_order_of_bounds_changes_nothing(workspace):
    one, other = (
        workspace.overlay(f"{name}.yaml", f"models: [{{name: ddm, bounds: {{{bounds}}}}}]\n")
        for name, bounds in (("one", "v: [-2, 2], a: [0.5, 2]"), ("other", "a: [0.5, 2], v: [-2, 2]"))
    )
    workspace.quick("shards", overlays=(one,))
    made = hashes(workspace)
    assert set(planned(workspace.quick("-n", "shards", "-R", "shards", overlays=(other,)))) == {"shards"}
    assert hashes(workspace) == made


def test_an_ascii_locale_is_no_obstacle(workspace):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    workspace.quick("datasets", **ascii_only)
    assert len(hashes(workspace)) == 3


def test_models_networks_and_seeds_fan_out(workspace):
    overlay = workspace.overlay(
        "many.yaml",
        """
        models: [ddm, angle]
        networks:
          - {name: small, hidden_layers: [8], activations: [tanh]}
          - {name: wide, hidden_layers: [64], activations: [relu]}
        training: {seeds: [1, 2, 3]}
        """,
    )
    jobs = planned(workspace.quick("-n", overlays=(overlay,)))
    assert jobs["generate_shards"] == 2 * 3
    assert jobs["train_torch"] == jobs["train_jax"] == 2 * 2 * 3
    assert jobs["evaluate_network"] == 24


def test_damaged_data_stop_before_training_with_the_full_list(quick_run):
    folder = quick_run / "results/quick/ddm/data"
    shutil.copy(folder / "shard-00001.safetensors", folder / "shard-00002.safetensors")
    (folder / "stray.safetensors").write_bytes(b"")
    output = quick_run.quick(fails=True)
    assert "shard-00002.safetensors: changed" in output
    assert "stray.safetensors: extra" in output
    log = (quick_run / "logs/quick/validate_training_data/ddm.log").read_text()
    assert "shard-00002.safetensors: changed" in log
    assert "Traceback" not in log
    assert not (quick_run / "results/quick/ddm/validation.json").exists()


def test_a_failing_script_leaves_its_traceback_in_its_log(quick_run):
    # No user's mistake: a folder where the job wants to write its inventory.
    (quick_run / "results/quick/ddm/generated_files_inventory.json").unlink()
    script = quick_run / "scripts/record_lineage.py"
    script.write_text(script.read_text().replace("(snakemake) as job:", "(snakemake) as job:\n    1 / 0"))
    output = quick_run.quick("datasets", fails=True)
    assert "ZeroDivisionError" in output
    assert "Traceback" in (quick_run / "logs/quick/record_lineage/ddm.log").read_text()


def test_a_mistake_in_the_configuration_stops_before_anything_runs(workspace):
    overlay = workspace.overlay("wrong.yaml", "training: {optimiser: adam}\nmodels: [dmd]")
    output = workspace.quick("-n", overlays=(overlay,), fails=True)
    assert "training.optimiser: unknown key" in output
    assert "Did you mean 'optimizer'?" in output
    assert "Did you mean 'ddm'?" in output
    assert "Traceback" not in output
    overlay = workspace.overlay("lacks.yaml", "data: {engine: closed_form}\nmodels: [ddm, weibull]")
    output = workspace.quick("-n", overlays=(overlay,), fails=True)
    assert "data.engine: weibull has no closed_form; expected auto, first_passage, simulation" in output
    assert "Traceback" not in output


def test_only_trainings_on_a_gpu_ask_for_one(workspace):
    small = "hidden_layers: [16], activations: [tanh]"
    overlay = workspace.overlay(
        "gpu.yaml", f"networks:\n  - {{name: fast, training: {{device: gpu}}, {small}}}\n  - {{name: slow, {small}}}\n"
    )
    output = workspace.quick("-n", overlays=(overlay,))
    resources = dict(re.findall(r"rule train_torch:.*?network=(\w+),.*?resources: (.*?)\n", output, re.S))
    assert "gpu=1" in resources["fast"]
    assert "gpu" not in resources["slow"]


def test_the_html_report_holds_figures_with_captions(quick_run):
    quick_run.quick("--report", "report.html")
    html = (quick_run / "report.html").read_text()
    for figure in ("agreement.png", "errors.png", "training-ddm-lan.png"):
        assert figure in html
    table = (quick_run / "reports/quick/summary.html").read_text().splitlines()
    assert all(name in "".join(table) for name in RUNS)
    assert table[1] in html.replace("\\n", "\n").replace('\\"', '"')  # on the first page, not as a link


def test_networks_that_give_probabilities_go_through_the_workflow(workspace):
    """With training keys of their own, on the shards of one model with a deadline."""
    small = "hidden_layers: [16], activations: [tanh]"
    overlay = workspace.overlay(
        "probabilities.yaml",
        "name: probabilities\nmodels: [ddm_deadline]\ntraining: {frameworks: [torch]}\nnetworks:\n"
        f"  - {{name: cpn, network_type: cpn, training: {{epochs: 20, batch_size: 50}}, {small}}}\n"
        f"  - {{name: opn, network_type: opn, training: {{epochs: 30, batch_size: 50}}, {small}}}\n",
    )
    workspace.quick(overlays=(overlay,))
    for network, epochs in (("cpn", 20), ("opn", 30)):
        name = f"ddm_deadline-{network}-torch-s1"
        sidecar = TrainingSidecar.read(workspace / f"results/probabilities/networks/{name}/run.json")
        assert sidecar.network_type == network
        report = workspace / f"reports/probabilities/{name}"
        assert json.loads((report / "training/metrics.json").read_text())["epochs"] == epochs
        metrics = json.loads((report / "evaluation/metrics.json").read_text())
        assert metrics["reference"] == "exact"
        assert metrics["probability_mae"] < 0.2  # 400 thetas for a quick look; an untrained network has 0.4
        assert {path.name for path in (report / "evaluation/figures").iterdir()} == {
            "agreement.png",
            "errors.png",
        }
    summary = (workspace / "reports/probabilities/summary.md").read_text()
    assert "ddm_deadline-opn-torch-s1" in summary
