"""Compare the shards with what is tracked and with the engine; see rules/validate.smk."""

from pathlib import Path

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.data_stages import validate_training_data
    from lanline.files import write_json
    from lanline.sidecars import Dataset

    config = parse_config(snakemake.config)
    dataset = Dataset.read(snakemake.input.dataset)
    report = validate_training_data(config, dataset, Path(snakemake.input.inventory), snakemake.threads)
    write_json(snakemake.output[0], report.to_json())
