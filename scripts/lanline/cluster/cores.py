"""How many cores this process may really use: fewer than the machine has, in a container or a cluster job."""

from __future__ import annotations

import os
from pathlib import Path

from lanline.logs import say

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that the scheduler lets this process run on, or its quota of processor time if that is less; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(cgroups, membership)])))


def capped_threads(wanted: int) -> int:
    """``wanted`` threads, or as many as there are cores: shares that spin while they wait for a core make a training
    several times slower (16 threads on 2 cores: 27,000 rows/s instead of 163,000)."""
    cores = usable_cores()
    if wanted > cores:
        say(f"{wanted} threads requested, but only {cores} core(s) available: training with {cores}")
    return min(wanted, cores)


def _quotas(cgroups: Path, membership: Path) -> list[float]:
    """Quotas in cores of this process's control group and of those that it lies in (version 2)."""
    try:
        own = next(line.partition("::")[2] for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "/"
    place = Path(own.lstrip("/"))
    quotas = []
    for folder in (place, *place.parents):
        try:
            quota, period = (cgroups / folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            quotas.append(int(quota) / int(period))
    return quotas
