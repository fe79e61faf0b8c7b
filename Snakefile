"""lanline: from a simulator model to a tested likelihood network. Each stage has its file in rules/."""

from snakemake.utils import min_version

min_version("9.12")


configfile: "config/config.yaml"


report: "docs/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/open.smk"
include: "rules/generate.smk"
include: "rules/lineage.smk"
include: "rules/validate.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        PATHS.summary("md"),


let_rules_be_targets(
    {
        "open_experiments": [PATHS.experiments(model) for model in MODELS],
        "generate_shards": [PATHS.shard(model, shard) for model in MODELS for shard in SHARDS],
        "record_lineage": [PATHS.dataset(model) for model in MODELS],
        "validate_training_data": [PATHS.validation(model) for model in MODELS],
        "train_torch": [PATHS.onnx(run) for run in runs("torch")],
        "train_jax": [PATHS.onnx(run) for run in runs("jax")],
        "evaluate_network": [PATHS.evaluation_report(run) / "metrics.json" for run in runs()],
    }
)
