"""What the files about the project say of it, where two of them say the same."""

import re
import tomllib

import yaml

import lanline
from conftest import ROOT


def read_yaml(name: str):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "lanline.__version__"}
    assert read_yaml("CITATION.cff")["version"] == lanline.__version__
    assert f"({lanline.__version__})" in re.search("^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]


def test_the_citation_says_what_the_project_says():
    citation, project = read_yaml("CITATION.cff"), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["title"] == project["name"]
    assert citation["license"] == project["license"]
    assert citation["abstract"] == f"{project['description']}."


def test_a_commit_and_a_change_on_github_run_what_everybody_runs():
    [repo] = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    assert [hook["entry"] for hook in repo["hooks"]] == ["make lint"]
    steps = read_yaml(".github/workflows/ci.yml")["jobs"]["ci"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_the_catalog_is_told_what_is_true():
    usage = read_yaml(".snakemake-workflow-catalog.yml")["usage"]
    rules = "".join(path.read_text() for path in ROOT.glob("rules/*.smk"))
    assert usage["software-stack-deployment"]["conda"] == ("conda:" in rules)
    assert usage["software-stack-deployment"]["apptainer"] == ("container:" in rules)
    assert usage["report"] == ("report(" in rules)
    assert "mandatory-flags" not in usage
