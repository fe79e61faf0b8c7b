"""A trained network, as the ONNX file that others will load, against a reference density.

In:  results/<name>/networks/<run>/ (model.onnx, run.json)
Out: reports/<name>/<run>/evaluation/ (config.yaml, metrics.json with the gate's verdict, figures/)
"""

EVALUATED = run_name("{model}", "{network}", "{framework}", "{seed}")
EVALUATION = PATHS.evaluation_report(EVALUATED)


rule evaluate_network:
    input:
        onnx=PATHS.onnx(EVALUATED),
        run=PATHS.run(EVALUATED),
    output:
        config=EVALUATION / "config.yaml",
        metrics=EVALUATION / "metrics.json",
        agreement=report(
            EVALUATION / "figures" / "agreement.png",
            caption="../docs/captions/agreement.rst",
            category="{model}",
            labels={"run": EVALUATED, "figure": "network and reference"},
        ),
        errors=report(
            EVALUATION / "figures" / "errors.png",
            caption="../docs/captions/errors.rst",
            category="{model}",
            labels={"run": EVALUATED, "figure": "errors over the parameter space"},
        ),
    log:
        PATHS.log("evaluate_network", EVALUATED),
    benchmark:
        PATHS.benchmark("evaluate_network", EVALUATED)
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **resources_for(CONFIG, resources.evaluate_network),
    params:
        settings=CONFIG.evaluation.model_dump(),
        data=lambda wildcards: data_settings(CONFIG, wildcards.model),
        code=stage_code("evaluate_network"),
    script:
        "../scripts/evaluate_network.py"
