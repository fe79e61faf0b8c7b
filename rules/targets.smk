"""Targets that stand for all files of a stage in the configuration: `snakemake --cores 2 jax_networks`."""


localrules:
    experiments,
    shards,
    datasets,
    validations,
    torch_networks,
    jax_networks,
    evaluations,


rule experiments:
    input:
        [PATHS.experiments(model) for model in MODELS],


rule shards:
    input:
        [PATHS.shard(model, shard) for model in MODELS for shard in SHARDS],


rule datasets:
    input:
        [PATHS.dataset(model) for model in MODELS],


rule validations:
    input:
        [PATHS.validation(model) for model in MODELS],


rule torch_networks:
    input:
        [PATHS.onnx(run) for run in training_names(CONFIG, "torch")],


rule jax_networks:
    input:
        [PATHS.onnx(run) for run in training_names(CONFIG, "jax")],


rule evaluations:
    input:
        [PATHS.evaluation_report(run) / "metrics.json" for run in RUNS],
