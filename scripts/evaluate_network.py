"""Judge a trained network against a reference; see rules/evaluate.smk."""

from pathlib import Path

from lanline.cluster.preemption import preemptible_job
from lanline.logs import job_log

with job_log(snakemake.log[0]), preemptible_job():
    from lanline.config import parse_config
    from lanline.evaluation_stage import evaluate_network
    from lanline.sidecars import Run

    config = parse_config(snakemake.config)
    evaluate_network(config, Run.read(snakemake.input.run), Path(snakemake.input.onnx), snakemake.threads)
