"""Train one network in the framework of its rule; see rules/train.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.stages.train_network import train_network, workflow_request

    train_network(workflow_request(job, snakemake.params.framework))
