"""The shards against what MLflow tracks, and against the engine. Nothing trains on data that fail.

In:  dataset.json, the local inventory (used without tracking), all shards
Out: results/<name>/<model>/validation.json; on failure the list of problems, in the log and on the terminal
"""


rule validate_training_data:
    input:
        dataset=PATHS.dataset("{model}"),
        inventory=PATHS.inventory("{model}"),
        shards=[PATHS.shard("{model}", shard) for shard in SHARDS],
    output:
        PATHS.validation("{model}"),
    log:
        PATHS.log("validate_training_data", "{model}"),
    benchmark:
        PATHS.benchmark("validate_training_data", "{model}")
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        **resources_for(CONFIG, resources.validate_training_data),
    params:
        code=stage_code("validate_training_data"),
        accept=CONFIG.data.accept_problems,
    script:
        "../scripts/validate_training_data.py"
