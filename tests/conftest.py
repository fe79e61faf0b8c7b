"""What tests share: a copy of the workflow in an empty folder, and a way to run Snakemake there."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# JAX counts its CPU devices once in a process: as many as any test asks for.
os.environ["JAX_NUM_CPU_DEVICES"] = "3"
PARTS = ("Snakefile", "rules", "scripts", "config", "envs", "docs", "profiles")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", metavar="FOLDER", help="where the browser tests leave their screenshots")


def pytest_configure(config: pytest.Config) -> None:
    """Where all tests are wanted, as in ``.ci/run``, none is skipped because a program is not installed."""
    if "LANLINE_ALL_TESTS" in os.environ:
        from slurm_cluster import why_not

        missing = why_not() or (None if shutil.which("chromium") else "there is no chromium")
        if missing:
            raise pytest.UsageError(missing)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Among workers the tests of a file stay together, since they share fixtures; those on SLURM share a cluster."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if nodeid.startswith("tests/slurm/") else super()._split_scope(nodeid)

    return ByFile(config, log)


class Workspace:
    """A folder with the workflow's files, as after a clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, folder / part)

    def __truediv__(self, part: str) -> Path:
        return self.folder / part

    def snakemake(self, *arguments: str, cores: int = 2, fails: bool = False, **variables: str) -> str:
        """Run Snakemake, with further environment variables, and give what it printed; a failure that is not
        expected fails the test."""
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]
        environment = {**clean_environment(), **variables}
        done = subprocess.run(command, cwd=self.folder, env=environment, text=True, capture_output=True)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        return output

    def quick(self, *arguments: str, overlays: tuple[str, ...] = (), **options) -> str:
        """Run Snakemake on config/quick.yaml and further overlays."""
        return self.snakemake(*arguments, "--configfile", "config/quick.yaml", *overlays, **options)

    def overlay(self, name: str, text: str) -> str:
        """Write a configuration file; gives its name."""
        (self.folder / name).write_text(text)
        return name


def clean_environment() -> dict[str, str]:
    """The environment without a user's own MLflow settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def finished_quick_run(tmp_path_factory) -> Workspace:
    """A finished run of config/quick.yaml without tracking; not to be changed."""
    workspace = Workspace(tmp_path_factory.mktemp("quick"))
    workspace.quick()
    return workspace


@pytest.fixture(scope="session")
def hssm_networks(tmp_path_factory) -> Path:
    """The folder with ``results/`` of networks for HSSM; LANLINE_HSSM_NETWORKS names one that was made before."""
    from hssm_networks import make_networks

    if made := os.environ.get("LANLINE_HSSM_NETWORKS"):
        return Path(made)
    return make_networks(Workspace(tmp_path_factory.mktemp("networks")))


@pytest.fixture
def quick_run(finished_quick_run, tmp_path) -> Workspace:
    """A copy of a finished run of config/quick.yaml, with its times, to change at will."""
    shutil.copytree(finished_quick_run.folder, tmp_path / "run", copy_function=shutil.copy2)
    copy = object.__new__(Workspace)
    copy.folder = tmp_path / "run"
    return copy


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A SQLite store without runs, to be copied: MLflow takes seconds to make one."""
    from lanline.tracking.mlflow.store import connect, resolve_store

    folder = tmp_path_factory.mktemp("store")
    connect(resolve_store(f"sqlite:///{folder}/mlflow.db"))
    return folder / "mlflow.db"


@pytest.fixture
def new_store(tmp_path, empty_database):
    """Makes stores without runs, each in a folder of its name."""
    from lanline.tracking.mlflow.store import resolve_store

    def make(name: str):
        (tmp_path / name).mkdir()
        shutil.copy(empty_database, tmp_path / name / "mlflow.db")
        return resolve_store(f"sqlite:///{tmp_path}/{name}/mlflow.db")

    return make


@pytest.fixture(scope="module")
def cluster():
    """A SLURM cluster that runs as long as a file's tests do: there can be one on a machine, so workers take turns."""
    from slurm_cluster import Cluster, new_folder, stop_left_behind, why_not

    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(new_folder())
    with (Path(tempfile.gettempdir()) / "lanline-slurm.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        stop_left_behind()
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def validated(cluster, tmp_path_factory):
    """Validated data of config/quick.yaml, to copy; all copies share one MLflow store that lies elsewhere."""
    from slurm_cluster import ClusterWorkspace

    workspace = ClusterWorkspace(tmp_path_factory.mktemp("validated"), tmp_path_factory.mktemp("store") / "mlflow.db")
    workspace.quick("validations", overlays=("tracked.yaml",))
    return workspace
