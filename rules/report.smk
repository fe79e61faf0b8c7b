"""What came out of the whole run: a table of all networks, and the training curves of both frameworks.

In:  every run's metrics, history and sidecar
Out: reports/<name>/summary.md, summary.json and figures/training_curves.png
"""


rule write_report:
    input:
        metrics=[PATHS.evaluation_report(run) / "metrics.json" for run in runs()],
        training=[PATHS.training_report(run) / "metrics.json" for run in runs()],
        histories=[PATHS.history(run) for run in runs()],
        runs=[PATHS.run(run) for run in runs()],
    output:
        summary=report(PATHS.summary, caption="../docs/captions/summary.rst", category="all networks"),
        json=PATHS.reports / "summary.json",
        curves=report(
            PATHS.reports / "figures" / "training_curves.png",
            caption="../docs/captions/training_curves.rst",
            category="all networks",
            labels={"run": "all", "figure": "training curves"},
        ),
    log:
        PATHS.log("write_report", "all"),
    benchmark:
        PATHS.benchmark("write_report", "all")
    localrule: True
    conda:
        "../envs/evaluation.yaml"
    script:
        "../scripts/write_report.py"


onsuccess:
    if PATHS.summary.exists() and PATHS.summary.stat().st_mtime >= STARTED:
        print(PATHS.summary.read_text())
