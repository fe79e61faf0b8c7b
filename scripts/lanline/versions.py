"""Versions of what made a result: Python, libraries, and the git commit."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions of the named distributions, and of Python. Imports none of them."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


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


@cache
def code_fingerprint(*modules: str) -> str:
    """Hash of the code of modules or packages (paths below ``lanline``), blind to comments, docstrings and layout.

    Rules carry it as a parameter, so that a stage runs again when code that decides its results has changed, and
    only then: Snakemake itself sees changes of the script, not of what the script imports.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for module in modules:
        path = root / module
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            digest.update(_syntax(source))
    return digest.hexdigest()[:16]


def training_code(framework: str) -> str:
    """Fingerprint of the code that decides a network's weights; the other framework's is not part of it."""
    shared = ("backend", "checkpoint", "loop", "losses", "reader", "schedule")
    own = sorted(path.stem for path in (Path(__file__).parent / "training").glob(f"{framework}_*.py"))
    return code_fingerprint("networks", "dataset/reading", *(f"training/{module}" for module in (*shared, *own)))


@cache
def _syntax(source: Path) -> bytes:
    """The syntax tree of a file without its docstrings; cached, since several rules depend on the same modules."""
    tree = ast.parse(source.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            body.pop(0)
    return ast.dump(tree).encode()


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
