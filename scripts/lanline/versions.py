"""Versions of what made a result: Python, libraries, and the git commit."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

# Another version of one of these may round labels differently, or draw other trials.
LABEL_LIBRARIES = ("numpy", "scipy", "numba", "ssm-simulators")


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions of the named distributions, and of Python. Imports none of them."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def version_changes(recorded: Mapping[str, str]) -> str:
    """The label libraries whose recorded version is not the installed one: ``numba 0.60.0 (now 0.61.2), ...``."""
    installed = library_versions(*LABEL_LIBRARIES)
    changed = [
        f"{name} {recorded[name]} (now {installed.get(name, 'not installed')})"
        for name in LABEL_LIBRARIES
        if name in recorded and recorded[name] != installed.get(name)
    ]
    return ", ".join(changed)


def git_commit(folder: Path = Path()) -> str | None:
    """The commit that ``folder`` is at, with ``-dirty`` when tracked files differ; None outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:  # git itself is not installed
        return None
    return done.stdout.strip() or None


def child_environment() -> dict[str, str]:
    """Environment for ``python -m lanline...``: the child imports this very code, which a rule's conda environment has
    only on the path that Snakemake gave this process."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
