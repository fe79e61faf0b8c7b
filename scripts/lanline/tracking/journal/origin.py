"""Where a run was made: commit, versions, host, job."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable, Mapping
from functools import cache

from lanline.cluster.slurm import fields, run_slurm
from lanline.errors import UserError
from lanline.logs import say
from lanline.versions import git_commit, library_versions

LIBRARIES = ("lanline", "numpy", "scipy", "ssm-simulators", "torch", "jax", "onnx", "mlflow")
SLURM_FIELDS = {
    "NodeList": "node",
    "Partition": "partition",
    "Account": "account",
    "TimeLimit": "time_limit",
    "Restarts": "restarts",
}


def standard_tags() -> dict[str, str]:
    """What every run tells about its origin: commit, versions, host, job. Never the environment or
    credentials."""
    tags = dict(_version_tags())
    if commit := git_commit():
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        tags["mlflow.user"] = str(os.getuid())
    return {**tags, **job_tags()}


@cache
def _version_tags() -> dict[str, str]:
    return {f"version.{name}": version for name, version in library_versions(*LIBRARIES).items()}


def job_tags() -> dict[str, str]:
    """Host of this process, and its SLURM job with its node and what it had asked for."""
    return {"host": socket.gethostname(), **(_slurm_tags(job) if (job := os.environ.get("SLURM_JOB_ID")) else {})}


def _slurm_tags(job: str) -> dict[str, str]:
    """What SLURM knows of a job. The environment of a step says little of it, and differs between versions."""
    tags = {"slurm_job_id": job}
    try:
        known = fields(run_slurm("scontrol", "show", "job", job, "--oneliner"))
    except UserError as error:  # a record of a run never stops the run
        say(f"could not query SLURM for job {job}: {error}")
        return tags
    requested = known.get("ReqTRES") or known.get("TRES")  # since SLURM 23.11, and before
    tags |= {f"slurm_{name}": value for field, name in SLURM_FIELDS.items() if (value := known.get(field))}
    return tags | ({"slurm_requested": requested} if requested else {})


def attempts(jobs: Iterable[str], now: Mapping[str, str]) -> dict[str, str]:
    """The tag ``slurm_job_ids``: every job that has worked on a run which is resumed, the current one last.

    Args:
        jobs: of the attempts so far.
        now: tags of the current attempt.
    """
    distinct = dict.fromkeys(job for job in (*jobs, now.get("slurm_job_id")) if job)
    return {"slurm_job_ids": ", ".join(distinct)} if distinct else {}
