"""Shards of training data from a model's engine, on any machine, without access to MLflow.

In:  experiments.json, so that an unreachable store is detected before anything is computed
Out: results/<name>/<model>/data/shard-<i>.safetensors and its record, shard-<i>.json, for each i of a group: one shard,
     or as many as data.shards_per_job says
"""


rule generate_shards:
    input:
        ancient(PATHS.experiments("{model}")),
    output:
        shards=[PATHS.shard("{model}", f"{{group}}{member}") for member in MEMBERS],
        records=[PATHS.shard_record("{model}", f"{{group}}{member}") for member in MEMBERS],
    log:
        PATHS.log("generate_shards", "{model}-{group}"),
    benchmark:
        PATHS.benchmark("generate_shards", "{model}-{group}")
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        **resources_for(CONFIG, resources.generate_shards),
    params:
        recipe=lambda wildcards: data_settings(CONFIG, wildcards.model),
        code=stage_code("generate_shards"),
    script:
        "../scripts/generate_shards.py"
