"""What the scripts of all rules share: the job's log, preemption, and the checked configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lanline.cluster.preemption import preemptible_job
from lanline.logs import job_log

if TYPE_CHECKING:
    from lanline.config import Config
    from lanline.paths import Paths
    from lanline.sidecars import ExperimentsSidecar


@dataclass(frozen=True)
class RuleJob:
    """The job that a rule's script was started for.

    Attributes:
        config: the checked configuration of the workflow.
        paths: of its files.
        wildcards: of the rule, by name.
        threads: cores that the job has.
    """

    config: Config
    paths: Paths
    wildcards: Mapping[str, str]
    threads: int

    @property
    def model(self) -> str:
        return self.wildcards["model"]

    @property
    def experiments(self) -> ExperimentsSidecar:
        """The MLflow experiments of the model, as `open_experiments` found or made them."""
        from lanline.sidecars import ExperimentsSidecar

        return ExperimentsSidecar.read(self.paths.experiments(self.model))


@contextmanager
def rule_script(snakemake: Any) -> Iterator[RuleJob]:
    """The body of a rule's script: its output goes to the job's log, and SIGTERM ends it in good order.

    Import what is heavy inside the block, so that what goes wrong there is in the log too.

    Args:
        snakemake: the object that Snakemake passes to a script.
    """
    with job_log(snakemake.log[0]), preemptible_job():
        from lanline.config import parse_config
        from lanline.paths import Paths

        config = parse_config(snakemake.config)
        yield RuleJob(config, Paths(config.name), dict(snakemake.wildcards.items()), snakemake.threads)
