"""Make the shards of a group and their records; see rules/generate.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.paths import shards_of_group
    from lanline.stages.generate_shards import ShardsRequest, generate_shards

    shards = shards_of_group(job.wildcards["group"], job.config.data.shards_per_job)
    generate_shards(ShardsRequest(job.config, job.model, shards, job.paths, job.threads, snakemake.params.code))
