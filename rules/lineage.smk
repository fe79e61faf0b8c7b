"""The data set's run in MLflow: one writer for all shards.

In:  the records of all shards, experiments.json
Out: results/<name>/<model>/generated_files_inventory.json and dataset.json (dataset_id, lineage_id, run_id)
"""


rule record_lineage:
    input:
        records=[PATHS.shard_record("{model}", shard) for shard in SHARDS],
        experiments=PATHS.experiments("{model}"),
    output:
        inventory=PATHS.inventory("{model}"),
        dataset=PATHS.dataset("{model}"),
    log:
        PATHS.log("record_lineage", "{model}"),
    benchmark:
        PATHS.benchmark("record_lineage", "{model}")
    localrule: True
    conda:
        "../envs/tracking.yaml"
    script:
        "../scripts/record_lineage.py"
