"""Train the networks of a job in the framework of its rule; see rules/train.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.stages.train_network import train_networks, workflow_requests

    train_networks(workflow_requests(job, snakemake.params.framework))
