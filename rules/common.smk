"""What the stages share: the checked configuration, the paths, and the names of models, shards and trainings."""

from snakemake.exceptions import WorkflowError

from lanline.cluster import resources
from lanline.config import check_time_limit, parse_config
from lanline.engine_facts import check_engines
from lanline.errors import UserError
from lanline.files import read_yaml
from lanline.fingerprints import stage_code, training_code
from lanline.paths import Paths, run_name, shard_groups
from lanline.workflow.jobs import (
    data_settings,
    resources_for,
    shard_labels,
    training_input,
    training_job,
    training_names,
    training_output,
    training_settings,
)

try:
    for path in workflow.configfiles:  # Snakemake reads them itself, and keeps the last of two equal keys
        read_yaml(path)
    CONFIG = parse_config(config)
    check_engines(CONFIG)
    check_time_limit(CONFIG)
except UserError as error:
    raise WorkflowError(str(error)) from None

PATHS = Paths(CONFIG.name)
MODELS = [entry.name for entry in CONFIG.models]
SHARDS = shard_labels(CONFIG)
GROUPS, MEMBERS = shard_groups(CONFIG.data.shards, CONFIG.data.shards_per_job)
RUNS = training_names(CONFIG)


wildcard_constraints:
    model="[A-Za-z0-9_]+",
    network="[A-Za-z0-9_]+",
    framework="torch|jax",
    seed=r"\d+",
    group=rf"\d{{{len(GROUPS[0])}}}",
