"""Record the data set's run and its inventory; see rules/lineage.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.stages.record_lineage import LineageRequest, record_lineage

    record_lineage(LineageRequest(job.config, job.model, job.paths, job.experiments.data_generation.name))
