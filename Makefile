# lanline: `make run` and `make test` do all the set-up on a fresh machine; `make help` lists every target.

PYTHON ?= python3
CORES ?= all
CONFIG ?=
VENV := .venv
BIN := $(VENV)/bin
# It resumes after a crash: the locks of the folder and of its jobs (cluster/folder.py) end with their processes.
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --nolock --rerun-incomplete $(if $(CONFIG),--configfile $(CONFIG))
STORE := $(addprefix --config ,config/config.yaml $(CONFIG))
PROFILE ?= $(firstword $(wildcard profiles/site) profiles/slurm)
ON_SLURM = $(BIN)/snakemake --profile $(PROFILE) $(if $(CONFIG),--configfile $(CONFIG))
# Not --quiet: pip names what it downloads with its size, and shows a bar on a terminal.
INSTALL := $(BIN)/pip install --disable-pip-version-check --constraint envs/constraints.txt
STORE_FILES := mlruns mlartifacts mlflow.db mlflow.db.lock mlflow.db.runs *.db-shm *.db-wal .mlflow
export MPLBACKEND := Agg
export PYTHONUTF8 := 1

.PHONY: help run test test-hssm lint format schema dag report pictures clean clean-results
.PHONY: slurm-profile slurm-run slurm-recover test-slurm
.PHONY: mlflow-ui mlflow-sync mlflow-migrate mlflow-export mlflow-import mlflow-prune
.DEFAULT_GOAL := help

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## install into .venv and run the workflow (CONFIG=, CORES=, PYTHON=)
	$(SNAKEMAKE) --profile profiles/terminal

test: $(VENV)/.installed-dev ## install the test dependencies and run all tests that can run here (PYTEST= for options)
	$(BIN)/python -m pytest --numprocesses 2 $(PYTEST)

test-slurm: $(VENV)/.installed-dev ## run the tests on a SLURM cluster that they start (as root, on Debian or Ubuntu)
	tests/slurm/packages.sh
	$(BIN)/python -m pytest tests/slurm $(PYTEST)

test-hssm: ## run the tests with the real HSSM, in .venv-hssm, with a Python that HSSM supports (PYTEST=)
	@python=$$(tests/hssm/python.sh) || exit $${LANLINE_ALL_TESTS:-0}; \
	if [ ! -e .venv-hssm/.installed ] || [ envs/constraints.txt -nt .venv-hssm/.installed ] || [ pyproject.toml -nt .venv-hssm/.installed ]; then \
	  echo "Installing lanline and HSSM into .venv-hssm with $$python: about a minute, 1.5 GB"; \
	  "$$python" -m venv .venv-hssm && .venv-hssm/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint envs/constraints.txt --editable '.[jax,hssm]' pytest pytest-xdist && touch .venv-hssm/.installed; \
	fi && .venv-hssm/bin/python -m pytest tests/hssm $(PYTEST)

lint: $(VENV)/.installed-dev ## ruff, mypy, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(VENV)/.installed-dev ## format Python and Snakemake files
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schema: $(VENV)/.installed ## regenerate config/schema.json from the types in scripts/lanline/config.py
	$(BIN)/python -m lanline.config config/schema.json

dag: $(VENV)/.installed ## draw the rule graph to reports/rulegraph.svg (CONFIG=)
	@mkdir -p reports
	$(SNAKEMAKE) --rulegraph | $(BIN)/python -m lanline.commands.rulegraph reports/rulegraph.svg

report: $(VENV)/.installed ## write the HTML report of a finished run: reports/report.html (CONFIG=)
	@mkdir -p reports
	$(SNAKEMAKE) --report reports/report.html

slurm-profile: $(VENV)/.installed-slurm ## query SLURM and write profiles/site/ for this cluster
	$(BIN)/lanline slurm-profile

slurm-run: $(VENV)/.installed-slurm ## run the workflow on the cluster (PROFILE=, CONFIG=)
	$(ON_SLURM)

slurm-recover: $(VENV)/.installed-slurm ## after a crash: cancel leftover jobs of this folder, unlock, resume (PROFILE=, CONFIG=)
	$(BIN)/lanline slurm-cancel
	$(ON_SLURM) --unlock
	$(ON_SLURM)

mlflow-ui: $(VENV)/.installed ## open the recorded runs on http://127.0.0.1:5000 (PORT=, CONFIG=)
	$(BIN)/lanline ui --port $(or $(PORT),5000) $(STORE)

mlflow-sync: $(VENV)/.installed ## sync records that MLflow missed (CONFIG=)
	$(BIN)/lanline sync $(STORE)

mlflow-migrate: $(VENV)/.installed ## migrate an old file store to SQLite (SOURCE=./mlruns, CONFIG=)
	$(BIN)/lanline migrate $(STORE) $(or $(SOURCE),$(error say which: make mlflow-migrate SOURCE=./mlruns))

mlflow-export: $(VENV)/.installed ## write a run, its data set and artifacts to an archive (RUN=, FILE=, CONFIG=)
	$(BIN)/lanline export $(STORE) $(or $(RUN),$(error say which: make mlflow-export RUN=<run id>)) $(or $(FILE),$(RUN).zip)

mlflow-import: $(VENV)/.installed ## import the runs of an archive into the store (FILE=, CONFIG=)
	$(BIN)/lanline import $(STORE) $(or $(FILE),$(error say which: make mlflow-import FILE=<archive>))

mlflow-prune: $(VENV)/.installed ## remove runs with their artifacts; shows them and asks (EXPERIMENT=, OLDER_THAN=30d, YES=1, CONFIG=)
	$(BIN)/lanline prune $(STORE) "$(or $(EXPERIMENT),$(error say which: make mlflow-prune EXPERIMENT=<name>))" $(if $(OLDER_THAN),--older-than $(OLDER_THAN)) $(if $(filter 1,$(YES)),--yes)

pictures: $(VENV)/.installed-dev ## redo the default run elsewhere and take the MLflow screenshots for docs/ from it
	$(BIN)/python -m pytest tests/browser --pictures docs/figures

clean: ## remove the tracking store and caches, not results or reports (FORCE=1: even if runs are active)
	@if [ "$(FORCE)" = 1 ]; then :; \
	elif [ -x $(BIN)/lanline ]; then $(BIN)/lanline running; \
	elif [ -n "$$(ls -d $(STORE_FILES) 2>/dev/null)" ]; then \
	  echo 'error: without $(BIN)/lanline, active runs cannot be detected, and they would lose their store:' >&2; \
	  echo 'install it (make run), or remove the store anyway: make clean FORCE=1' >&2; exit 1; fi
	rm -rf $(STORE_FILES)
	rm -rf .pytest_cache .ruff_cache .mypy_cache
	find scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-results: ## remove results, reports and logs; asks first unless FORCE=1
	@if [ "$(FORCE)" != 1 ]; then \
	  printf 'Remove results/, reports/ and logs/ for good? [y/N] '; read answer; [ "$$answer" = y ] || exit 1; fi
	rm -rf results reports logs

$(VENV)/bin/python:
	@echo "Creating $(VENV) with $(PYTHON)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lanline needs Python >= 3.11, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml envs/constraints.txt
	@echo "Installing lanline with MLflow, PyTorch and JAX into $(VENV): a few minutes the first time."
	@echo "It needs about 2 GB of disk with PyTorch's CPU build, and several GB more if pip chooses the CUDA build."
	$(INSTALL) --editable '.[mlflow,torch,jax]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test dependencies into $(VENV)"
	$(INSTALL) --editable '.[mlflow,torch,jax,slurm,dev]'
	@touch $@

$(VENV)/.installed-slurm: $(VENV)/.installed
	@echo "Installing Snakemake's SLURM executor into $(VENV)"
	$(INSTALL) --editable '.[mlflow,torch,jax,slurm]'
	@touch $@
