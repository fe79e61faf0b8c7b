"""The tracking store and a model's experiments: made once, before any fan-out.

Out: results/<name>/<model>/experiments.json (names and ids; ids are null without tracking)
"""

from lanline.files import redact


rule open_experiments:
    output:
        PATHS.experiments("{model}"),
    log:
        PATHS.log("open_experiments", "{model}"),
    benchmark:
        PATHS.benchmark("open_experiments", "{model}")
    localrule: True
    conda:
        "../envs/tracking.yaml"
    params:
        tracking=CONFIG.mlflow_tracking,
        settings=redact(CONFIG.tracking.model_dump_json()),  # Snakemake keeps params in .snakemake/
        experiment=CONFIG.mlflow_experiment_name,
    script:
        "../scripts/open_experiments.py"
