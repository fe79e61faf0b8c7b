"""Compare the shards with what is tracked and with the engine; see rules/validate.smk."""

from pathlib import Path

from lanline.cluster.preemption import leaves_requeueing_to_slurm
from lanline.logs import job_log

with job_log(snakemake.log[0]), leaves_requeueing_to_slurm():
    from lanline.config import parse_config
    from lanline.data_stages import validate_training_data
    from lanline.files import write_json
    from lanline.paths import Paths
    from lanline.sidecars import Dataset
    from lanline.tracking.journal.amend import amend_run
    from lanline.tracking.journal.events import journals
    from lanline.tracking.mlflow.store import store_of

    config = parse_config(snakemake.config)
    dataset = Dataset.read(snakemake.input.dataset)
    report = validate_training_data(config, dataset, Path(snakemake.input.inventory), snakemake.threads)
    write_json(snakemake.output[0], report.to_json())
    recorded = Paths(config.name).data_report(dataset.model)
    if journals(recorded):  # reports/ may have been cleared: data are valid all the same
        with amend_run(recorded, store_of(config)) as run:
            run.set_tags({"validation": "accepted" if report.problems else "passed"})
            run.log_artifact(Path(snakemake.output[0]))
