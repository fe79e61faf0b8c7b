"""One shard of training data from a model's engine, on any machine, without a route to MLflow.

In:  experiments.json, only so that an unreachable store is known before anything is computed
Out: results/<name>/<model>/data/shard-<i>.safetensors and its record, shard-<i>.json
"""


rule generate_shard:
    input:
        ancient(PATHS.experiments("{model}")),
    output:
        shard=PATHS.shard("{model}", "{shard}"),
        record=PATHS.shard_record("{model}", "{shard}"),
    log:
        PATHS.log("generate_shard", "{model}-{shard}"),
    benchmark:
        PATHS.benchmark("generate_shard", "{model}-{shard}")
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        recipe=lambda wildcards: CONFIG.data_recipe(wildcards.model),
        code=code_fingerprint("engines", "dataset/rows", "dataset/shards"),
    script:
        "../scripts/generate_shard.py"
