"""Open the tracking store and a model's experiments; see rules/open.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.stages.open_experiments import ExperimentsRequest, open_experiments

    open_experiments(ExperimentsRequest(job.config, job.model, job.paths))
