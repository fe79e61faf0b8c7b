"""What came out of the whole run: a table of all networks, and the training curves of both frameworks.

In:  every run's metrics, history and sidecar
Out: reports/<name>/summary.md, .json and .txt, and figures/training-<model>-<network>.png
"""


rule write_report:
    input:
        metrics=[PATHS.evaluation_report(run) / "metrics.json" for run in runs()],
        training=[PATHS.training_report(run) / "metrics.json" for run in runs()],
        histories=[PATHS.history(run) for run in runs()],
        runs=[PATHS.run(run) for run in runs()],
    output:
        markdown=report(PATHS.summary("md"), caption="../docs/captions/summary.rst", category="all networks"),
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


onstart:
    take_folder()
    ask_for_the_store()


onsuccess:
    bring_over_what_mlflow_missed()
    if PATHS.summary("txt").exists() and PATHS.summary("txt").stat().st_mtime >= STARTED:
        print(PATHS.summary("txt").read_text())


onerror:
    bring_over_what_mlflow_missed()
