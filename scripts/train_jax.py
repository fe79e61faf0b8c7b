"""Train one network in JAX; see rules/train.smk."""

from lanline.cluster.preemption import preemptible_job
from lanline.logs import job_log

with job_log(snakemake.log[0]), preemptible_job():
    from lanline.config import parse_config
    from lanline.training_stage import train_network, workflow_task

    config = parse_config(snakemake.config)
    train_network(config, workflow_task(config, snakemake, "jax"))
