"""Make the shards of a group and their records; see rules/generate.smk."""

from lanline.cluster.preemption import preemptible_job
from lanline.logs import job_log

with job_log(snakemake.log[0]), preemptible_job():
    from lanline.config import parse_config
    from lanline.dataset.generate import generate_group
    from lanline.paths import Paths

    config = parse_config(snakemake.config)
    per_job = config.data.shards_per_job
    first = int(snakemake.wildcards.group) * per_job
    generate_group(
        config,
        snakemake.wildcards.model,
        range(first, first + per_job),
        Paths(config.name),
        snakemake.params.code,
        snakemake.threads,
    )
