"""What a cluster needs and can be tested without one; tests/slurm has the rest."""

import re
import subprocess
import sys
import time

import pytest

from conftest import ROOT
from lanline.cluster import folder, preemption, resources
from lanline.cluster.folder import lock_workdir
from lanline.cluster.site import Partition, _choose, _minutes
from lanline.cluster.slurm import fields, run_slurm
from lanline.config import parse_config
from lanline.dataset import row_checks, rows
from lanline.dataset.generate import generate_shard
from lanline.errors import UserError
from lanline.files import sha256_file
from lanline.paths import Paths, shard_groups, shard_label
from lanline.sidecars import ShardSidecar
from lanline.stages.generate_shards import ShardsRequest, generate_shards
from lanline.tracking.journal.events import Start, Tags
from lanline.tracking.journal.origin import attempts
from lanline.tracking.journal.record import fold

WILDCARDS = {"model": "ddm", "network": "lan", "framework": "torch", "seed": "1"}


def config(model: str = "ddm", training: dict | None = None, **data):
    return parse_config({"name": "x", "models": [model], "data": data, "training": training or {}})


# --- groups of shards ---
@pytest.mark.parametrize("per_job", [1, 10, 100])
def test_groups_are_a_partition_of_the_shards(per_job):
    groups, members = shard_groups(300, per_job)
    assert len(members) == per_job
    assert [group + member for group in groups for member in members] == [shard_label(i) for i in range(300)]


def test_shards_must_fill_their_jobs():
    with pytest.raises(UserError, match=r"data: shards is 12, not a multiple of shards_per_job \(10\)"):
        config(shards=12, shards_per_job=10)


def test_a_group_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = config(shards=10, shards_per_job=10, thetas_per_shard=16, rows_per_theta=5)
    paths = Paths("x")

    def stops_at_shard_3(config, model, shard, path):
        if shard == 3:
            raise SystemExit(143)
        return generate_shard(config, model, shard, path)

    with monkeypatch.context() as patched:
        patched.setattr("lanline.dataset.generate.generate_shard", stops_at_shard_3)
        with pytest.raises(SystemExit):
            generate_shards(ShardsRequest(settings, "ddm", range(10), paths, 1, "code"))
    [unfinished] = paths.unfinished("ddm").iterdir()
    assert len(list(unfinished.glob("*.json"))) == 3
    assert not paths.data_folder("ddm").exists()
    (unfinished / "shard-00001.safetensors").write_bytes(b"torn by a full disk")

    made = []

    def noted(config, model, shard, path):
        made.append(shard)
        return generate_shard(config, model, shard, path)

    with monkeypatch.context() as patched:
        patched.setattr("lanline.dataset.generate.generate_shard", noted)
        generate_shards(ShardsRequest(settings, "ddm", range(10), paths, 1, "code"))
    assert made == [1, 3, 4, 5, 6, 7, 8, 9]
    folder = paths.data_folder("ddm")
    for path in sorted(folder.glob("*.json")):
        record = ShardSidecar.read(path)
        assert sha256_file(folder / record.file) == record.sha256
    assert len(list(folder.glob("*.safetensors"))) == 10
    assert list(unfinished.iterdir()) == []


def test_unfinished_work_of_other_code_is_not_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = config(shards=2, thetas_per_shard=16, rows_per_theta=5)
    paths = Paths("x")
    generate_shards(ShardsRequest(settings, "ddm", [0], paths, 1, "old"))
    [old] = paths.unfinished("ddm").iterdir()
    generate_shards(ShardsRequest(settings, "ddm", [1], paths, 1, "new"))
    assert len(list(paths.unfinished("ddm").iterdir())) == 2
    assert old in paths.unfinished("ddm").iterdir()


# --- what a job asks for ---
def test_more_work_asks_for_more():
    def of(settings, rule=resources.generate_shards, threads=1):
        return rule(settings, WILDCARDS, threads)

    assert of(config(shards=100, shards_per_job=100)).runtime > 10 * of(config(shards=100)).runtime / 2
    assert of(config(rows_per_theta=500_000)).mem_mb > 2 * of(config()).mem_mb
    assert of(config(engine="simulation")).runtime > 10 * of(config()).runtime
    more_epochs = config(training={"epochs": 300})
    assert of(more_epochs, resources.train).runtime > 20 * of(config(), resources.train).runtime / 2
    assert of(more_epochs, resources.train, threads=16).runtime < of(more_epochs, resources.train).runtime
    assert of(config(shards=5000), resources.validate_training_data).runtime > of(config()).runtime


def test_shards_stream_so_larger_ones_ask_for_no_more_memory():
    """Measured, peak of a shard of 20 million rows: 178 MB to make, 179 MB to check (benchmarks/README.md)."""
    small, large = config(rows_per_theta=1000), config(thetas_per_shard=200_000, rows_per_theta=1000)
    for rule in (resources.generate_shards, resources.validate_training_data):
        assert rule(large, WILDCARDS, 1).mem_mb == rule(small, WILDCARDS, 1).mem_mb < 1.2 * resources.BASE_MB
    assert (resources.BLOCK_THETAS, resources.CHECKED_ROWS) == (rows.BLOCK_THETAS, row_checks.PIECE_ROWS)


def test_an_evaluation_is_priced_at_what_its_reference_costs():
    """The reference takes the best engine that a model has, whatever the training data come from."""
    simulated = config(engine="simulation", rows_per_theta=10_000, n_trajectories=100_000)
    assert resources.evaluate_network(simulated, WILDCARDS, 1) == resources.evaluate_network(config(), WILDCARDS, 1)
    longer = resources.evaluate_network(config("levy"), {"model": "levy"}, 1)
    assert longer.runtime > 2 * resources.evaluate_network(config(), WILDCARDS, 1).runtime
    thetas, more = 2 * config().evaluation.mass_thetas, config("levy", n_trajectories=200_000)
    larger = resources.evaluate_network(more, {"model": "levy"}, 1)  # measured: 34 bytes for each trial of all thetas
    assert larger.mem_mb - longer.mem_mb > thetas * 180_000 * 34 / 1e6


def test_validation_counts_on_threads_only_where_they_simulate_side_by_side():
    def minutes(model, threads):
        settings = config(model, shards=5000, engine="simulation")
        return resources.validate_training_data(settings, {"model": model}, threads).runtime

    assert minutes("levy", 4) == minutes("levy", 1)  # by ssm-simulators, which has one random state
    assert minutes("lca_3", 4) < minutes("lca_3", 1)


def test_a_network_asks_for_what_its_own_training_takes():
    own = {"small": {}, "long": {"epochs": 100}, "wide": {"buffer_gb": 8}, "fast": {"device": "gpu"}}
    networks = [{"name": name, "training": training} for name, training in own.items()]
    settings = parse_config({"name": "x", "models": ["ddm"], "data": {"shards": 3000}, "networks": networks})

    train = {name: resources.train(settings, {**WILDCARDS, "network": name}, 2) for name in own}
    assert train["long"].runtime > 3 * train["small"].runtime
    assert train["wide"].mem_mb > 2 * train["small"].mem_mb
    assert train["fast"] == train["small"]
    asked = {name: resources.gpu(settings, {**WILDCARDS, "network": name}) for name in own}
    assert asked == {"small": None, "long": None, "wide": None, "fast": 1}


def test_a_training_asks_for_the_rows_of_its_type_and_for_the_width_of_its_batches():
    cpn = {"network_type": "cpn", "training": {"epochs": 60, "batch_size": 500}}
    own = {"lan": {}, "cpn": cpn, "wide": {"hidden_layers": [1000] * 3, "activations": ["tanh"] * 3}}
    own["large"] = {**own["wide"], "training": {"batch_size": 100_000}}
    networks = [{"name": name, **keys} for name, keys in own.items()]
    settings = parse_config({"name": "x", "models": ["ddm"], "networks": networks})
    train = {name: resources.train(settings, {**WILDCARDS, "network": name}, 2) for name in own}
    assert train["cpn"].runtime < train["lan"].runtime  # 60 epochs of 60,000 rows, and 3 of 6 million
    assert train["large"].mem_mb - train["wide"].mem_mb > 3 * 1000 * 100_000 * 4 * 2 / 1e6


def test_a_job_of_all_seeds_asks_for_the_time_of_each():
    def asked(**training):
        return resources.train(config(training={"epochs": 300, **training}), WILDCARDS, 2)

    one, four = asked(seeds=[1], seeds_per_job="all"), asked(seeds=[1, 2, 3, 4], seeds_per_job="all")
    assert one == asked(seeds=[1]) == asked(seeds=[1, 2, 3, 4])
    assert four.runtime - resources.BASE_MINUTES > 4 * (one.runtime - resources.BASE_MINUTES) - 4
    assert four.mem_mb == one.mem_mb  # one after the other


def test_shards_made_at_once_take_less_time_and_memory_for_each():
    simulated = {"engine": "simulation", "thetas_per_shard": 20_000, "shards_per_job": 10}

    def at_once(threads, **data):
        return resources.generate_shards(config(shards=10, **data), WILDCARDS, threads)

    one, four, ten = (at_once(threads, **simulated) for threads in (1, 4, 10))
    assert (four.mem_mb, ten.mem_mb) == pytest.approx((4 * one.mem_mb, 10 * one.mem_mb), abs=10)
    assert at_once(16, **simulated) == ten  # no more processes than shards
    work = one.runtime - resources.BASE_MINUTES
    assert four.runtime == pytest.approx(resources.BASE_MINUTES + 0.3 * work, abs=1)  # 4, 4 and 2
    assert ten.runtime == pytest.approx(resources.BASE_MINUTES + 0.1 * work, abs=1)
    assert at_once(16, shards_per_job=1) == at_once(1, shards_per_job=1)


@pytest.mark.parametrize(
    ("model", "target", "seconds"),
    [
        ("dev_rlwm_lba_pw_v1", "continuous", 2.5),
        ("dev_rlwm_lba_pw_v1", "euler", 3.2),
        ("ddm_mic2_leak_conflict_gamma_no_bias", "euler", 3.2),
        ("lca_no_z_4", "continuous", 0.14),
        ("ddm_mic2_leak_conflict_gamma_no_bias", "continuous", 0.15),
        ("lca_3", "euler", 17),
    ],
)
def test_the_time_limit_covers_the_slowest_simulators(model, target, seconds):
    """Measured, CPU seconds for a theta with 20,000 trials: benchmarks/README.md; lca_no_z_4 is a mean over 16."""
    settings = config(model, engine="simulation", target=target, thetas_per_shard=6000)
    asked = resources.generate_shards(settings, {"model": model}, 1).runtime
    assert 1.2 < asked / (100 * seconds) < 4


def test_the_step_counts_for_the_target_euler_only():
    def minutes(model, **data):
        settings = config(model, engine="simulation", thetas_per_shard=60_000, **data)
        return resources.generate_shards(settings, {"model": model}, 1).runtime

    assert minutes("levy", delta_t=1e-4) == minutes("levy", delta_t=1e-2) == minutes("levy")
    assert minutes("levy", target="euler", delta_t=1e-4) > 9 * minutes("levy", target="euler")
    # Ballistic accumulators have no steps.
    longest = minutes("dev_rlwm_lba_pw_v1", target="euler", delta_t=1e-2)
    assert longest >= minutes("dev_rlwm_lba_pw_v1")


def test_what_is_asked_for_covers_what_the_default_run_takes():
    """Measured for config/config.yaml: a shard 1 s and 0.5 GB, a training 65 s and 1.2 GB."""
    assert resources.generate_shards(config(), WILDCARDS, 1).mem_mb >= 1000
    training = resources.train(config(), WILDCARDS, 2)
    assert training.mem_mb >= 2000
    assert 10 <= training.runtime <= 60


# --- whose folder ---
def test_a_folder_has_one_head(tmp_path):
    code = (
        "import sys; from pathlib import Path; from lanline.cluster.folder import lock_workdir;"
        "lock_workdir(Path(sys.argv[1])); print('holds', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) as other:
        assert other.stdout.readline() == "holds\n"
        with pytest.raises(UserError, match=f"is in use by process {other.pid} on "):
            lock_workdir(tmp_path)
        other.kill()
        other.wait()
    lock_workdir(tmp_path)  # a dead head holds nothing


def test_a_job_whose_snakemake_was_killed_is_waited_for(tmp_path, monkeypatch):
    code = (
        "import time; from pathlib import Path; from lanline.logs import job_log\n"
        "with job_log(Path('job.log')):\n"
        "    Path('runs').touch()\n"
        "    time.sleep(60)"
    )
    monkeypatch.setattr(folder, "ORPHAN_SECONDS", 0.5)
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as job:
        while not (tmp_path / "runs").exists():
            assert job.poll() is None
            time.sleep(0.01)
        with pytest.raises(UserError, match="jobs of a Snakemake that was killed are still running in"):
            lock_workdir(tmp_path)
        job.kill()
        job.wait()
    lock_workdir(tmp_path)


def test_a_folder_with_jobs_of_old_is_usable_where_slurm_is_not_installed(tmp_path, monkeypatch, capfd):
    (tmp_path / ".snakemake/slurm_logs").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    lock_workdir(tmp_path)
    output = "".join(capfd.readouterr())
    assert output.count("\n") == 1
    assert "without squeue here" in output


# --- what SLURM says ---
def test_fields_of_scontrol():
    line = "JobId=5 JobName=a b UserId=root(0) TRES=cpu=2,gres/gpu=1 Command=(null) NtasksPerN:B:S:C=0:0:*:* Power= "
    assert fields(line) == {
        "JobId": "5",
        "JobName": "a b",
        "UserId": "root(0)",
        "TRES": "cpu=2,gres/gpu=1",
        "Command": "(null)",
        "NtasksPerN:B:S:C": "0:0:*:*",
        "Power": "",
    }


@pytest.mark.parametrize(
    ("said", "preempted"),
    [
        ("JobId=5 EndTime=2026-01-01T10:00:00", False),
        ("JobId=5 PreemptEligibleTime=2026-01-01T09:00:00 PreemptTime=None SuspendTime=None", False),
        ("JobId=5 PreemptEligibleTime=2026-01-01T09:00:00 PreemptTime=2026-01-01T09:30:00 SuspendTime=None", True),
    ],
)
def test_a_job_is_preempted_when_slurm_names_the_time(said, preempted, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setattr(preemption, "run_slurm", lambda *command: said)
    assert preemption._is_preempted() == preempted


def test_every_job_of_a_cluster_is_preemptible():
    text = "".join(path.read_text() for path in ROOT.glob("rules/*.smk"))
    rules = re.split(r"^(?:use )?rule ", text, flags=re.MULTILINE)[1:]
    sent = [rule for rule in rules if "script:" in rule and "localrule: True" not in rule]
    scripts = {re.search(r"scripts/\w+\.py", rule).group() for rule in sent}
    assert {"scripts/generate_shards.py", "scripts/train_network.py"} < scripts
    missing = [name for name in scripts if "with rule_script(snakemake) as job:" not in (ROOT / name).read_text()]
    assert not missing


def test_times_of_partitions():
    assert [_minutes(text) for text in ("1-00:30:00", "02:00:00", "UNLIMITED")] == [1470, 120, None]


def test_the_default_partition_is_chosen_or_else_the_largest():
    def partition(name, nodes, default=False):
        return Partition(name, default, nodes, 8, 16_000, 60, None, False)

    assert _choose([partition("a", 5), partition("b", 1, default=True)]).name == "b"
    assert _choose([partition("a", 5), partition("b", 9)]).name == "b"
    with pytest.raises(UserError, match="no available partition"):
        _choose([])


def test_a_missing_slurm_is_named():
    with pytest.raises(UserError, match="no-such-command is not installed here"):
        run_slurm("no-such-command")


def test_all_jobs_of_a_run_are_remembered(tmp_path):
    store = {"key": "k", "name": "n", "experiment": "e", "store": None, "time": 0, "identity": ""}
    events = [Start(**store, tags={"slurm_job_id": "3"}), Tags(tags={"slurm_job_id": "4"})]
    jobs = fold(events, tmp_path / "journal" / "k.jsonl").jobs
    assert attempts(jobs, {"slurm_job_id": "7"}) == {"slurm_job_ids": "3, 4, 7"}
    assert attempts(jobs, {"slurm_job_id": "4"}) == {"slurm_job_ids": "3, 4"}
    assert attempts([], {}) == {}
