"""Write the table of all networks and their training curves; see rules/report.smk."""

from pathlib import Path

from lanline.logs import job_log

with job_log(snakemake.log[0]):
    from lanline.config import parse_config
    from lanline.evaluation_stage import write_report

    config = parse_config(snakemake.config)
    write_report(
        config, [Path(path) for path in snakemake.input.runs], [Path(path) for path in snakemake.input.metrics]
    )
