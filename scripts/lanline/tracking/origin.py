"""Where a run was made: commit, versions, host, job."""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache

from lanline.versions import git_commit, library_versions

LIBRARIES = ("lanline", "numpy", "scipy", "ssm-simulators", "torch", "jax", "onnx", "mlflow")


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
    """Host and SLURM job of this process."""
    job = os.environ.get("SLURM_JOB_ID")
    return {"host": socket.gethostname(), **({"slurm_job_id": job} if job else {})}
