"""Train one network in JAX; see rules/train.smk."""

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.training_stage import train_network, workflow_task

    config = parse_config(snakemake.config)
    run = train_network(config, workflow_task(config, snakemake, "jax"))
    run.write(snakemake.output.run)
