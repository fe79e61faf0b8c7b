"""Write the table of all networks and their training curves; see rules/report.smk."""

from pathlib import Path

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.stages.write_report import ReportRequest, write_report

    runs, metrics = ([Path(path) for path in files] for files in (snakemake.input.runs, snakemake.input.metrics))
    write_report(ReportRequest(job.config, job.paths, runs, metrics))
