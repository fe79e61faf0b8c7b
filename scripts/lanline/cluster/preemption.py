"""A job that SLURM takes off its node for another one goes back into the queue, if it leaves that to SLURM.

SLURM sends SIGTERM, waits for the partition's grace time, kills the job and queues it again. A job that ends by itself
within the grace time counts as failed instead, and costs one of the attempts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lanline.cluster.slurm import fields, run_slurm
from lanline.errors import UserError
from lanline.logs import say
from lanline.termination import Terminated, terminate

LONGEST_GRACE = 3600.0


@contextmanager
def preemptible_job() -> Iterator[None]:
    """SIGTERM ends the block in good order; a job that is preempted then waits for SLURM to kill it."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except Terminated:
        if _is_preempted():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("preempted: finished work is kept, and SLURM requeues the job")
            time.sleep(LONGEST_GRACE)
        raise


def _is_preempted() -> bool:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    try:
        # "None" for a job that could be preempted and is not.
        return fields(run_slurm("scontrol", "show", "job", job, "--oneliner")).get("PreemptTime", "None") != "None"
    except UserError as error:
        say(f"could not query SLURM whether job {job} is preempted: {error}")
        return False
