"""What conda installs for a stage is what pip installs for all of them."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from itertools import chain
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))


def pinned() -> dict[str, str]:
    """Version of each constrained distribution on Python 3.11."""
    lines = (ROOT / "envs/constraints.txt").read_text().splitlines()
    found = re.findall(r"^([\w.-]+)==([^;\s]+)(.*)$", "\n".join(lines), re.M)
    return {name.lower(): version for name, version, marker in found if ">=" not in marker}


def requirements(path: Path) -> dict[str, str]:
    entries = yaml.safe_load(path.read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    return dict(entry.split("==") for entry in pip)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_versions_are_those_of_the_constraints(path):
    constraints = pinned()
    for name, version in requirements(path).items():
        assert constraints[name] == version, f"{path.name}: {name}"


def test_every_dependency_is_constrained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted}
    constrained = re.findall(r"^([\w.-]+)==", (ROOT / "envs/constraints.txt").read_text(), re.M)
    assert names <= {name.lower() for name in constrained}


def test_every_rule_names_an_environment_that_exists():
    for rules in (ROOT / "rules").glob("*.smk"):
        for name in re.findall(r'"\.\./envs/([\w.]+)"', rules.read_text()):
            assert (ROOT / "envs" / name).exists()


def stages() -> list[tuple[str, str]]:
    """Environment and script of every rule."""
    pairs = []
    for rules in sorted((ROOT / "rules").glob("*.smk")):
        pairs += re.findall(r'"\.\./envs/([\w.]+)".*?"\.\./scripts/(\w+\.py)"', rules.read_text(), re.S)
    return pairs


def imported(nodes) -> Iterator[str]:
    """Names of modules; ``from a import b`` may mean the module ``a.b``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def outside_packages(script: Path) -> set[str]:
    """Packages of others that importing what a script imports needs; what lanline imports inside functions is left
    out, since a stage may never come there."""
    wanted, seen, outside = list(imported(ast.walk(ast.parse(script.read_text())))), set(), set()
    if script.stem.startswith("train_"):  # imported by its name
        wanted.append(f"lanline.training.{script.stem.removeprefix('train_')}_backend")
    while wanted:
        name = wanted.pop()
        top = name.split(".")[0]
        path = ROOT / "scripts" / name.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if top != "lanline":
            outside |= {top} - set(sys.stdlib_module_names)
        elif source not in seen and source.exists():
            seen.add(source)
            wanted += imported(ast.parse(source.read_text()).body)
    return outside


@pytest.mark.parametrize(("environment", "script"), stages())
def test_an_environment_has_what_its_stages_import(environment, script):
    installed = {name.lower() for name in requirements(ROOT / "envs" / environment)}
    for name in list(installed):  # with what those need, extras left out
        needed = [line for line in requires(name) or [] if "extra ==" not in line]
        installed |= {re.match(r"[\w.-]+", line)[0].lower() for line in needed}
    distributions = packages_distributions()
    for package in outside_packages(ROOT / "scripts" / script):
        assert installed & {name.lower() for name in distributions[package]}, f"{script} imports {package}"


def test_a_child_process_imports_lanline_where_it_is_not_installed(tmp_path):
    """As in a rule's conda environment, where Snakemake puts scripts/ on the path of the rule's process only."""
    venv.create(tmp_path / "bare")
    python = str(tmp_path / "bare/bin/python")
    code = (
        "import subprocess, sys; sys.path.append(sys.argv[1]); from lanline.versions import child_environment;"
        "command = [sys.executable, '-m', 'lanline.versions'];"
        "raise SystemExit(subprocess.run(command, env=child_environment()).returncode)"
    )
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    assert subprocess.run([python, "-c", code, str(ROOT / "scripts")], env=bare, cwd=tmp_path).returncode == 0
