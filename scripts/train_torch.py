"""Train one network in PyTorch; see rules/train.smk."""

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.training_stage import train_network, workflow_task

    run = train_network(parse_config(snakemake.config), workflow_task(snakemake, "torch"))
    run.write(snakemake.output.run)
