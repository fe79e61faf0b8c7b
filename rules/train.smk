"""One network from validated shards, in PyTorch or in JAX, with the same settings and the same initial weights;
or one for each seed, if training.seeds_per_job is all.

In:  validation.json, dataset.json, experiments.json, all shards
Out: results/<name>/networks/<run>/ (model.onnx, hssm.json, weights.safetensors, network.json, history.csv,
     run.json)
     reports/<name>/<run>/training/ (config.yaml, metrics.json)
"""

TRAINING_JOB = training_job(CONFIG)


rule train_torch:
    input:
        **training_input(CONFIG, PATHS),
    output:
        **training_output(CONFIG, PATHS, "torch"),
    log:
        PATHS.log("train_torch", TRAINING_JOB),
    benchmark:
        PATHS.benchmark("train_torch", TRAINING_JOB)
    conda:
        "../envs/torch.yaml"
    threads: 2
    resources:
        **resources_for(CONFIG, resources.train),
        gpu=lambda wildcards: resources.gpu(CONFIG, wildcards),
    params:
        framework="torch",
        settings=lambda wildcards: training_settings(CONFIG, wildcards.network),
        code=training_code("torch"),
    script:
        "../scripts/train_network.py"


use rule train_torch as train_jax with:
    output:
        **training_output(CONFIG, PATHS, "jax"),
    log:
        PATHS.log("train_jax", TRAINING_JOB),
    benchmark:
        PATHS.benchmark("train_jax", TRAINING_JOB)
    conda:
        "../envs/jax.yaml"
    params:
        framework="jax",
        settings=lambda wildcards: training_settings(CONFIG, wildcards.network),
        code=training_code("jax"),
