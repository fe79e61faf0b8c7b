"""Record the data set's run and its inventory; see rules/lineage.smk."""

import shutil
from pathlib import Path

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.data_stages import record_lineage
    from lanline.paths import Paths
    from lanline.sidecars import Experiments, ShardRecord

    config, model = parse_config(snakemake.config), snakemake.wildcards.model
    dataset = record_lineage(
        config,
        model,
        [ShardRecord.read(path) for path in snakemake.input.records],
        Experiments.read(snakemake.input.experiments),
        Paths(config.name).data_folder(model),
        Path(snakemake.output.inventory),
        Paths(config.name).data_report(model),
    )
    dataset.write(snakemake.output.dataset)
    shutil.rmtree(Paths(config.name).unfinished(model), ignore_errors=True)  # all shards are in their places
