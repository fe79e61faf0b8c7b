"""Who may use a working directory: the Snakemake that runs there, and the jobs that it submitted.

When a head process dies (kill -9, a login node that restarts) its jobs keep running. A second head would write the
same files. So a head holds a lock on its folder while it lives, and does not start while jobs of another one remain.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lanline.cluster.slurm import run_slurm
from lanline.errors import UserError
from lanline.locks import try_lock
from lanline.logs import JOBS_LOCK, say

LOCK = Path(".snakemake/lanline-head.lock")
SUBMITTED = Path(".snakemake/slurm_logs")  # Snakemake's executor makes it before the first job
POLL_SECONDS = 1.0
ORPHAN_SECONDS = 10.0  # for a job to end whose Snakemake has just been killed with it
MOST_SECONDS = 600.0  # longer than any grace time between SIGTERM and SIGKILL
_held: list[TextIO] = []  # open, and so locked, until this process ends


@dataclass(frozen=True)
class SlurmJob:
    """A job in SLURM's queue that Snakemake submitted."""

    id: str
    user: str
    state: str
    rule: str


def lock_workdir(folder: Path) -> None:
    """Hold ``folder`` until this process ends. Where SLURM is not installed, its jobs are not checked.

    Raises:
        UserError: another head runs there, or jobs of a dead one still run or are in the queue.
    """
    with _held_for_a_while(folder):
        _refuse_beside_jobs_in_the_queue(folder)
        _wait_for_orphans(folder)
    _held.append(_lock(folder))


def _refuse_beside_jobs_in_the_queue(folder: Path) -> None:
    if not (folder / SUBMITTED).exists():
        return
    if shutil.which("squeue") is None:  # a folder that was brought here, or that several machines see
        say("jobs were submitted to SLURM from this folder; without squeue here, leftover jobs were not checked")
        return
    if jobs := jobs_of(folder):
        raise UserError(
            f"jobs of an earlier run of this folder are still in the queue: {_listed(jobs)}. "
            "`make slurm-recover` cancels them and resumes; or wait until they have finished"
        )


def refuse_beside_another(folder: Path) -> None:
    """Raise `UserError` if a head runs in ``folder``; leaves no trace where none ever did."""
    if (folder / LOCK).exists():
        with _held_for_a_while(folder):
            pass


def cancel_orphans(folder: Path) -> None:
    """Cancel the jobs of a head that died, and wait until none of their processes can write any more.

    Raises:
        UserError: the head is alive, or some jobs do not end or belong to another user.
    """
    with _held_for_a_while(folder):
        jobs = jobs_of(folder)
        me = getpass.getuser()
        if mine := [job.id for job in jobs if job.user == me]:
            say(f"cancelling {_listed(jobs)}")
            run_slurm("scancel", *mine)
        deadline = time.monotonic() + MOST_SECONDS
        while left := jobs_of(folder):
            if others := [job for job in left if job.user != me]:
                raise UserError(
                    f"{_listed(others)} in this folder belong to {others[0].user}, who alone can cancel them"
                )
            if time.monotonic() > deadline:
                raise UserError(f"{_listed(left)} did not end within {MOST_SECONDS:.0f} s: check `squeue --me`")
            time.sleep(POLL_SECONDS)
    say(f"{len(jobs)} job(s) cancelled, none left" if jobs else "no jobs of this folder are in the queue")


def jobs_of(folder: Path) -> list[SlurmJob]:
    """The jobs in the queue that a Snakemake in ``folder`` submitted, running or waiting."""
    lines = run_slurm("squeue", "--noheader", "--all", "--format=%A|%u|%T|%Z|%k").splitlines()
    here = folder.resolve()
    found = []
    for line in lines:
        job, user, state, place, comment = line.split("|", 4)
        kind, _, rule = comment.partition("_")  # Snakemake's executor writes rule_<name>_wildcards_<values>
        if kind in ("rule", "group") and Path(place).resolve() == here:
            found.append(SlurmJob(job, user, state, rule.partition("_wildcards_")[0]))
    return found


def _wait_for_orphans(folder: Path) -> None:
    """A job outlives a Snakemake that was killed alone: the files that it writes must not be deleted."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    with (folder / JOBS_LOCK).open("a+") as file:
        while not try_lock(file):
            if time.monotonic() > deadline:
                raise UserError(
                    f"jobs of a Snakemake that was killed are still running in {folder.resolve()}: wait for them, "
                    f"or stop them (`fuser {JOBS_LOCK}` lists their processes)"
                )
            time.sleep(POLL_SECONDS)


@contextmanager
def _held_for_a_while(folder: Path) -> Iterator[None]:
    with _lock(folder):
        yield


def _lock(folder: Path) -> TextIO:
    """The folder's lock file, open and locked; in it, for others, who holds it."""
    path = folder / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    if not try_lock(file):
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise UserError(f"{folder.resolve()} is in use by {holder}: wait for it, or stop it")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _listed(jobs: list[SlurmJob]) -> str:
    shown = ", ".join(f"{job.id} ({job.rule}, {job.state})" for job in jobs[:5])
    return f"{len(jobs)} job(s): {shown}" + (", ..." if len(jobs) > 5 else "")
