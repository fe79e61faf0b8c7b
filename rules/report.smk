"""The results of the whole run: a table of all networks, and the training curves of both frameworks.

In:  every run's metrics, history and sidecar
Out: reports/<name>/summary.md, .json, .html and .txt, and figures/training-<model>-<network>.png
"""


rule write_report:
    input:
        metrics=[PATHS.evaluation_report(run) / "metrics.json" for run in RUNS],
        training=[PATHS.training_report(run) / "metrics.json" for run in RUNS],
        histories=[PATHS.history(run) for run in RUNS],
        runs=[PATHS.run(run) for run in RUNS],
    output:
        table=report(
            PATHS.summary("html"),
            caption="../docs/captions/summary.rst",
            category="all networks",
            labels={"table": "accuracy and gate"},
        ),
        markdown=PATHS.summary("md"),
        json=PATHS.summary("json"),
        text=PATHS.summary("txt"),
        curves=[
            report(
                PATHS.training_curves(model, network.name),
                caption="../docs/captions/training_curves.rst",
                category=model,
                labels={"run": network.name, "figure": "training curves"},
            )
            for model in MODELS
            for network in CONFIG.networks
        ],
    log:
        PATHS.log("write_report", "all"),
    benchmark:
        PATHS.benchmark("write_report", "all")
    localrule: True
    conda:
        "../envs/evaluation.yaml"
    params:
        code=stage_code("write_report"),
    script:
        "../scripts/write_report.py"
