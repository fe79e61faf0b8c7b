"""What every rule's script does beside its stage: log, mistakes, preemption."""

import os
import signal
import subprocess
import sys
from pathlib import Path

CODE = """
import os, signal, sys
from types import SimpleNamespace
from lanline.stages.script import rule_script

wildcards = {{"model": "ddm", "seed": "1"}}
snakemake = SimpleNamespace(log=["logs/job.log"], config={config}, wildcards=wildcards, threads=3)
with rule_script(snakemake) as job:
    print(job.model, job.wildcards["seed"], job.threads, job.paths.results, job.config.name)
    {body}
"""


def script(folder: Path, body: str, config: str = "{'name': 'x', 'models': ['ddm']}") -> subprocess.CompletedProcess:
    code = CODE.format(config=config, body=body)
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_JOB_ID"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_script_gets_its_job_and_prints_into_the_log(tmp_path):
    done = script(tmp_path, "pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "logs/job.log").read_text() == "ddm 1 3 results/x x\n"


def test_a_wrong_configuration_ends_with_one_message(tmp_path):
    done = script(tmp_path, "pass", config="{'name': 'x', 'models': ['dmd']}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: configuration has 1 mistake(s):")
    assert "Traceback" not in done.stderr


def test_sigterm_ends_it_in_good_order(tmp_path):
    body = """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        open("tidied", "w").close()
    """
    assert script(tmp_path, body).returncode == 128 + signal.SIGTERM
    assert (tmp_path / "tidied").exists()
