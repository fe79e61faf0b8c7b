"""A SLURM cluster for the tests in tests/slurm: starting it, breaking parts of it, and workflows that run on it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from conftest import ROOT, Workspace, clean_environment
from lanline.cluster.site import write_profile
from lanline.cluster.slurm import fields, run_slurm

SCRIPTS = ROOT / "tests/slurm"
SLURM_CONF = Path("/etc/slurm/slurm.conf")  # a link to the running cluster's
FOLDER_PREFIX = "lanline-slurm-"
COMMANDS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch")
# On top of the shipped profile: ask after 7 s and not after 20, since these jobs last some seconds only.
SOON = ("--slurm-init-seconds-before-status-checks", "7")


def why_not() -> str | None:
    """Why a cluster cannot be started here, or None if it can."""
    missing = [command for command in COMMANDS if shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        what = ", ".join(missing)
        return f"NO SLURM CLUSTER CAN BE STARTED HERE: {what} missing (tests/slurm/packages.sh installs what it needs)"
    return None if os.getuid() == 0 else "NO SLURM CLUSTER CAN BE STARTED HERE: only root can"


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120.0) -> object:
    """The first true value of ``condition``; fails the test if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
    return value


def new_folder() -> Path:
    """A folder for a cluster, which the users of its jobs may read."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    folder.chmod(0o755)
    return folder


def stop_left_behind() -> None:
    """Stop what a killed run of the tests has left. Only for who holds the lock: no other cluster is in use then."""
    left = SLURM_CONF.resolve().parent.parent
    if SLURM_CONF.is_symlink() and left.name.startswith(FOLDER_PREFIX):
        Cluster(left).stop()


class Cluster:
    """The cluster of tests/slurm/start-slurm.sh; nodes n1, n2 and n3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "LANLINE_SLURM": str(folder)}

    def start(self) -> None:
        """Start whatever of it does not run."""
        done = subprocess.run([SCRIPTS / "start-slurm.sh"], env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        for head in Head.started:  # of tests that failed
            head.process.kill()
        subprocess.run([SCRIPTS / "stop-slurm.sh"], env=self._environment, check=True)

    def kill(self, daemon: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a daemon (``slurmctld``, ``slurmd.n1``): at once, as a crash would, or with SIGTERM in good order."""
        pid = int((self.folder / f"run/{daemon}.pid").read_text())
        os.kill(pid, how)
        wait_until(lambda: not runs(pid), f"the end of {daemon}")

    def lose_node(self, node: str) -> None:
        """A node loses its power: nothing of it goes on, and the controller hears of it. `start` brings it back."""
        self.kill(f"slurmd.{node}")
        for job in run_slurm("squeue", "--noheader", f"--nodelist={node}", "--format=%A").split():
            for pid in processes_of(job):
                os.kill(pid, signal.SIGKILL)
        run_slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def processes_of(job: str) -> list[int]:
    """Ids of all processes of a job, those that watch over it included."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if f"SLURM_JOB_ID={job}\0".encode() in environment or command.startswith(f"slurmstepd: [{job}.".encode()):
            found.append(int(path.name))
    return found


def freeze_training(job: str) -> None:
    """Let a training stand still, as on a node that hangs: what it does next takes no machine's speed."""
    for pid in processes_of(job):
        if b"train_network.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGSTOP)


def job(job_id: str) -> dict[str, str]:
    """What the controller knows of a job, ended ones included."""
    return fields(run_slurm("scontrol", "show", "job", job_id, "--oneliner"))


class Head:
    """A Snakemake that runs on the cluster, in the background."""

    started: ClassVar[list["Head"]] = []

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder, self._log = folder, folder / "head.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=log, stderr=log)
        self.started.append(self)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def jobs(self, rule: str) -> list[str]:
        """SLURM's ids of the jobs of a rule, in the order of submission."""
        return re.findall(rf"submitted with SLURM jobid (\d+) \(log: \S*/rule_{rule}/", self.output)

    def running(self, rule: str) -> str:
        """The id of the latest job of a rule, once it runs."""

        def current() -> str | None:
            assert self.process.poll() is None, self.output
            return next((id for id in reversed(self.jobs(rule)) if job(id)["JobState"] == "RUNNING"), None)

        return wait_until(current, f"a running job of {rule}")

    def finish(self, fails: bool = False, seconds: float = 300.0) -> str:
        """Wait for its end, give what it printed."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds:.0f} s:\n{self.output}")
        assert (code != 0) == fails, self.output
        return self.output


class ClusterWorkspace(Workspace):
    """A folder with the workflow's files and a profile for the cluster, as `make slurm-profile` writes it.

    Args:
        folder: where.
        store: SQLite file that ``tracked.yaml`` names as MLflow's store.
    """

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        super().__init__(folder)
        write_profile(folder / "profiles/site/config.yaml", folder / "profiles/slurm/config.yaml")
        self.store = store
        if store:
            self.overlay("tracked.yaml", f"mlflow_tracking: true\ntracking: {{uri: 'sqlite:///{store}'}}")

    def head(self, *targets: str, overlays: tuple[str, ...] = (), profile: str = "profiles/site", options=()) -> Head:
        """Start Snakemake on config/quick.yaml."""
        command = [sys.executable, "-m", "snakemake", *targets, "--profile", profile, *SOON, *options]
        return Head(self.folder, [*command, "--configfile", "config/quick.yaml", *overlays])

    def copy(self, folder: Path) -> "ClusterWorkspace":
        """This folder with its times, to go on from where it is."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2)
        copied = object.__new__(ClusterWorkspace)
        copied.folder, copied.store = folder, self.store
        return copied
