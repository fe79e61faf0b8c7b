"""Compare the shards with what is tracked and with the engine; see rules/validate.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.stages.validate_training_data import ValidationRequest, validate_training_data

    validate_training_data(ValidationRequest(job.config, job.model, job.paths, job.threads))
