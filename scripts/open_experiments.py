"""Open the tracking store and a model's experiments; see rules/open.smk."""

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.data_stages import open_experiments

    config = parse_config(snakemake.config)
    experiments = open_experiments(config, snakemake.wildcards.model)
    experiments.write(snakemake.output[0])
