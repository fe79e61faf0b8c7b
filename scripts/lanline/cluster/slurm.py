"""Asking SLURM: its commands as text, and their ``key=value`` answers as dictionaries."""

from __future__ import annotations

import re
import subprocess

from lanline.errors import UserError

SECONDS = 60.0


def run_slurm(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        UserError: SLURM is not installed here, or the command failed or did not answer within a minute.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed here: run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{' '.join(command)} did not answer within {SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def fields(line: str) -> dict[str, str]:
    """The fields of one line of ``scontrol show ... --oneliner``. A value reaches up to the next ``Name=``."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(.*?)(?=\s+[A-Za-z][\w/:]*=|\s*$)", line))
