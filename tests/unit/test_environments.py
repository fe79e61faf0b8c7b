"""What conda installs for a stage is what pip installs for all of them."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
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
    assert names <= pinned().keys()


def test_every_rule_names_an_environment_that_exists():
    for rules in (ROOT / "rules").glob("*.smk"):
        for name in re.findall(r'"\.\./envs/([\w.]+)"', rules.read_text()):
            assert (ROOT / "envs" / name).exists()
