"""A profile for this cluster, from what SLURM reports: partitions, their limits, and the user's accounts."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from pathlib import Path

from lanline.cluster.slurm import fields, run_slurm
from lanline.errors import UserError
from lanline.files import write_text

SHIPPED = Path("profiles/slurm/config.yaml")
HEAD = """\
# Written by `make slurm-profile` from what cluster {cluster} (SLURM {version}) reports. Edit it as you like:
# profiles/README.md explains each key. The file is not under version control.
#
# partition        nodes  cores/node  memory/node      time limit  GPUs/node
"""


@dataclass(frozen=True)
class Partition:
    """One partition that this user may use.

    Attributes:
        name: of the partition.
        default: whether jobs go there that name none.
        nodes: number of nodes.
        cpus: of its smallest node.
        mem_mb: of its smallest node, or the most that a job may request on one node.
        minutes: longest time limit, or None for no limit.
        gres: generic resources of its nodes that are GPUs, e.g. gpu:a100:4.
        preemptible: whether its jobs can be preempted.
    """

    name: str
    default: bool
    nodes: int
    cpus: int
    mem_mb: int
    minutes: int | None
    gres: str | None
    preemptible: bool

    def line(self) -> str:
        limit = "none" if self.minutes is None else f"{self.minutes} min"
        notes = " (default)" * self.default + " (preemptible)" * self.preemptible
        table = f"{self.nodes:5}  {self.cpus:10}  {self.mem_mb:8} MB  {limit:>14}  {self.gres or '-'}"
        return f"# {self.name:16} {table}{notes}"


def write_profile(path: Path, shipped: Path = SHIPPED) -> list[Partition]:
    """Write ``path``, a Snakemake profile: the shipped one with this cluster's partition, account and limits.

    Raises:
        UserError: the file already exists, SLURM does not answer, or no partition is available.
    """
    if path.exists():
        raise UserError(f"{path} already exists; move it to generate a new one")
    settings = dict(re.findall(r"^(\w+)\s*= (.*)$", run_slurm("scontrol", "show", "config"), re.M))
    accounting = settings["AccountingStorageType"].strip()
    accounts, default_account = _accounts() if accounting == "accounting_storage/slurmdbd" else ([], None)
    found = partitions(accounts)
    kept = [partition for partition in found if not partition.preemptible] or found
    cpu = _choose(kept)
    gpu = min((partition for partition in kept if partition.gres), key=lambda partition: partition.nodes, default=cpu)
    head = HEAD.format(cluster=settings["ClusterName"].strip(), version=settings["SLURM_VERSION"].strip())
    head += "\n".join(partition.line() for partition in found)
    if accounts:
        head += f"\n#\n# accounts of {getpass.getuser()}: {', '.join(accounts)}"
    text = shipped.read_text()
    body = text[text.index("executor:") :]
    body = re.sub(r"\n  # slurm_account:.*\n  # slurm_partition:.*\n", "\n", body)
    lines = [f"  slurm_partition: {cpu.name}"]
    if default_account:
        lines.append(f"  slurm_account: {default_account}")
    if gpu is not cpu:
        lines.append("# With training.device: gpu in the configuration, use this for the trainings:")
        lines.append("# set-resources:")
        lines += [f"#   {rule}: {{slurm_partition: {gpu.name}}}" for rule in ("train_torch", "train_jax")]
    lines += ["# No job requests more than this, however often it is retried.", "resources:"]
    lines.append(f"  mem_mb: {cpu.mem_mb}")
    lines += [f"  runtime: {cpu.minutes}"] if cpu.minutes is not None else []
    lines += ["set-resource-scopes: {mem_mb: local, runtime: local}  # for each job, not for all of them together"]
    write_text(path, f"{head}\n{body.rstrip()}\n" + "\n".join(lines) + "\n")
    return found


def partitions(accounts: list[str]) -> list[Partition]:
    """The partitions that are up and open to one of these accounts (or to all)."""
    found = []
    for line in run_slurm("scontrol", "show", "partition", "--oneliner").splitlines():
        facts = fields(line)
        allowed = facts.get("AllowAccounts", "ALL")
        closed = allowed != "ALL" and accounts and not set(allowed.split(",")) & set(accounts)
        if facts.get("State") == "UP" and facts.get("RootOnly") != "YES" and not closed:
            found.append(_partition(facts))
    return found


def _partition(facts: dict[str, str]) -> Partition:
    name = facts["PartitionName"]
    nodes = [line.split("|") for line in _nodes(name)]
    limit = facts.get("MaxMemPerNode", "UNLIMITED")
    memory = [int(memory.rstrip("+")) for _, memory, _, _ in nodes]
    gres = [part.split("(")[0] for _, _, text, _ in nodes for part in text.split(",") if part.startswith("gpu")]
    return Partition(
        name=name,
        default=facts.get("Default") == "YES",
        nodes=sum(int(count) for *_, count in nodes),
        cpus=min(int(cpus.rstrip("+")) for cpus, *_ in nodes),
        mem_mb=min([*memory, *([int(limit)] if limit.isdigit() else [])]),
        minutes=_minutes(facts["MaxTime"]),
        gres=gres[0] if gres else None,
        preemptible=facts.get("PreemptMode", "OFF") not in ("OFF", "WITHIN"),
    )


def _nodes(partition: str) -> list[str]:
    """One line ``cores|MB|generic resources|nodes`` for each kind of node."""
    lines = run_slurm("sinfo", "--noheader", f"--partition={partition}", "--exact", "--format=%c|%m|%G|%D").splitlines()
    if not lines:
        raise UserError(f"sinfo lists no nodes of partition {partition}")
    return lines


def _choose(found: list[Partition]) -> Partition:
    """The cluster's default partition, or else the largest."""
    if not found:
        raise UserError("no available partition that you can submit to")
    return max(found, key=lambda partition: (partition.default, partition.nodes * partition.cpus))


def _accounts() -> tuple[list[str], str | None]:
    """The user's accounts, and the default one."""
    user = getpass.getuser()
    accounts = run_slurm(
        "sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}", "format=account"
    ).split()
    default = run_slurm("sacctmgr", "--noheader", "--parsable2", "show", "user", user, "format=defaultaccount").split()
    return sorted(set(accounts)), default[0] if default else None


def _minutes(text: str) -> int | None:
    """``1-00:30:00``, ``02:00:00`` or UNLIMITED as minutes."""
    if text in ("UNLIMITED", "NONE"):
        return None
    days, _, rest = text.rpartition("-")
    hours, minutes, _ = (int(part) for part in rest.split(":"))
    return int(days or 0) * 1440 + hours * 60 + minutes
