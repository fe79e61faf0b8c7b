"""lanline: from a simulator model to a tested likelihood network. Each stage has its file in rules/."""

import time
from pathlib import Path

from snakemake.utils import min_version

from lanline.workflow import handlers

min_version("9.12")
STARTED = time.time()
DEFAULTS = Path("config/config.yaml")


configfile: DEFAULTS if DEFAULTS.exists() else workflow.basedir / DEFAULTS


report: "docs/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/open.smk"
include: "rules/generate.smk"
include: "rules/lineage.smk"
include: "rules/validate.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/targets.smk"


rule all:
    default_target: True
    input:
        PATHS.summary("md"),


onstart:
    handlers.before_jobs(CONFIG)


onsuccess:
    handlers.after_jobs(CONFIG)
    handlers.show_summary(PATHS, STARTED)


onerror:
    handlers.after_jobs(CONFIG)
