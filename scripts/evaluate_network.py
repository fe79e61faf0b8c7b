"""Judge a trained network against a reference; see rules/evaluate.smk."""

from lanline.stages.script import rule_script

with rule_script(snakemake) as job:
    from lanline.paths import run_name
    from lanline.stages.evaluate_network import EvaluationRequest, evaluate_network

    evaluate_network(EvaluationRequest(job.config, run_name(**job.wildcards), job.paths, job.threads))
