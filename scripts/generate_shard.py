"""Make one shard of training data and its record; see rules/generate.smk."""

from pathlib import Path

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.dataset.generate import generate_shard

    config = parse_config(snakemake.config)
    model, shard = snakemake.wildcards.model, int(snakemake.wildcards.shard)
    record = generate_shard(config, model, shard, Path(snakemake.output.shard))
    record.write(snakemake.output.record)
