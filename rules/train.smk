"""One network from validated shards, in PyTorch or in JAX, with the same settings and the same initial weights.

In:  validation.json, dataset.json, experiments.json, all shards
Out: results/<name>/networks/<run>/ (model.onnx, hssm.json, weights.safetensors, network.json, history.csv,
     run.json)
     reports/<name>/<run>/training/ (config.yaml, metrics.json)
"""


rule train_torch:
    input:
        **training_input(),
    output:
        **training_output("torch"),
    log:
        PATHS.log("train_torch", "{model}-{network}-s{seed}"),
    benchmark:
        PATHS.benchmark("train_torch", "{model}-{network}-s{seed}")
    conda:
        "../envs/torch.yaml"
    threads: 2
    resources:
        **asks(effort.train),
        gpu=lambda wildcards: effort.gpu(CONFIG, wildcards),
    params:
        settings=training_settings,
        code=training_code("torch"),
    script:
        "../scripts/train_torch.py"


rule train_jax:
    input:
        **training_input(),
    output:
        **training_output("jax"),
    log:
        PATHS.log("train_jax", "{model}-{network}-s{seed}"),
    benchmark:
        PATHS.benchmark("train_jax", "{model}-{network}-s{seed}")
    conda:
        "../envs/jax.yaml"
    threads: 2
    resources:
        **asks(effort.train),
        gpu=lambda wildcards: effort.gpu(CONFIG, wildcards),
    params:
        settings=training_settings,
        code=training_code("jax"),
    script:
        "../scripts/train_jax.py"
