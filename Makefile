# One command each. `make help` lists them; CI runs the same ones.
#
# The targets work on the local cluster (local_cluster/, named $(CLUSTER_NAME)) unless
# CLUSTER=kubeconfig is given: then on the cluster that KUBECONFIG names, with REGISTRY= for the
# images. Tests that drain, cut or kill there also need ALLOW_DISRUPTION=<context name>.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps of `test` build on each other and share clusters, also under `make -j`.
.NOTPARALLEL:

CLUSTER ?= local
CLUSTER_NAME ?= cabildo
export CLUSTER CLUSTER_NAME REGISTRY ALLOW_DISRUPTION

VENV := .venv
PYTHON := $(VENV)/bin/python
SOURCE_ROOTS := crds operator trainer_image kernels cli local_cluster
PACKAGES := cabildo_api cabildo_operator cabildo_trainer cabildo_kernels cabildo_cli cabildo_local
# Rebuilt when a lock file, a distribution's metadata or a compiled kernel changes.
VENV_STAMP := $(VENV)/.complete
NATIVE := kernels/setup.py $(wildcard kernels/cabildo_kernels/native/*.c kernels/cabildo_kernels/native/*.h \
  kernels/cabildo_kernels/native/*.pyx)
PYTEST := $(PYTHON) -m pytest

# The demo needs no torch on this machine: it is in the trainer's image.
CLI_VENV := .venv-cli
CLI_ROOTS := crds cli local_cluster
CLI_STAMP := $(CLI_VENV)/.complete
CABILDO := $(CLI_VENV)/bin/cabildo

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV_STAMP): requirements/dev.txt $(SOURCE_ROOTS:=/pyproject.toml) $(NATIVE) scripts/make-venv
	@scripts/make-venv $(VENV) requirements/dev.txt $(SOURCE_ROOTS)
	@touch $@

$(CLI_STAMP): requirements/cli.txt $(CLI_ROOTS:=/pyproject.toml) scripts/make-venv
	@scripts/make-venv $(CLI_VENV) requirements/cli.txt $(CLI_ROOTS)
	@touch $@

.PHONY: venv
venv: $(VENV_STAMP) ## make the developer's environment (.venv)

.PHONY: packages
packages: $(CLI_STAMP) ## install the Debian packages that the local cluster runs on (as root)
	@$(CABILDO) cluster prepare

.PHONY: demo
demo: $(CLI_STAMP) ## train examples/quickstart.yaml in two real pods on a real Kubernetes
	@$(CABILDO) demo

.PHONY: test
test: packages check test-unit test-cluster test-e2e coverage-gate ## everything CI runs: checks, unit, control plane, real pods

.PHONY: test-unit
test-unit: packages $(VENV_STAMP) ## unit and contract tests, with two trainer ranks as host processes
	@scripts/run-tests unit tests/unit tests/contract -m "not long"

.PHONY: test-cluster
test-cluster: packages $(VENV_STAMP) ## tests against a real control plane (no nodes)
	@scripts/run-tests cluster tests/cluster -m "not long"

.PHONY: coverage-gate
coverage-gate: $(VENV_STAMP) ## line coverage of each package (of the runs just made)
	@$(PYTHON) tests/coverage_gate.py

.PHONY: test-e2e
test-e2e: packages $(VENV_STAMP) ## the quick end-to-end cases on real pods
	@scripts/run-tests e2e tests/e2e -m "not long"

# In two parts: the clusters of the first are down before the second takes its times.
.PHONY: test-long
test-long: packages $(VENV_STAMP) ## the whole matrix: every fault, cluster life cycle, the cold demo
	@status=0; \
	$(PYTEST) tests/cluster tests/e2e -m "long or e2e" || status=$$?; \
	$(PYTEST) tests/long || status=$$?; \
	exit $$status

.PHONY: check
check: $(VENV_STAMP) ## lint, types, layers, drift of everything generated
	@scripts/check

.PHONY: fmt
fmt: $(VENV_STAMP) ## format the code
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix-only --quiet . || true

.PHONY: generate
generate: $(VENV_STAMP) ## write the CRDs, the chart's copy of them and the generated pages
	@scripts/generate

.PHONY: lock
lock: ## pin requirements/*.in with hashes (needs the package index)
	@scripts/lock

.PHONY: bench
bench: bench-operator bench-kernels bench-merge ## all benchmarks, and docs/benchmarks.md from their figures
	@$(PYTHON) tests/bench/page.py

.PHONY: bench-operator
bench-operator: packages $(VENV_STAMP) ## 500 TrainingJobs at 50 per second against a real control plane
	@PYTHONPATH=tests $(PYTHON) tests/bench/bench_operator.py

.PHONY: bench-kernels
bench-kernels: $(VENV_STAMP) ## the kernels beside a pure read of memory, NumPy, torch and byzfl
	@OMP_NUM_THREADS=1 $(PYTHON) tests/bench/bench_kernels.py

.PHONY: bench-merge
bench-merge: $(VENV_STAMP) ## merges of 3.6 GB of models in files, beside mergekit as a program of its own
	@PYTHONPATH=tests $(PYTHON) tests/bench/bench_merge.py

.PHONY: eval-consensus
eval-consensus: $(VENV_STAMP) ## merging rules against attacks: table and picture in docs (about half an hour)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=tests $(PYTHON) -m eval.eval_consensus --publish

.PHONY: cluster-up
cluster-up: $(CLI_STAMP) ## bring the local cluster up
	@$(CABILDO) cluster up --name $(CLUSTER_NAME)

.PHONY: cluster-down
cluster-down: $(CLI_STAMP) ## take the local cluster down
	@$(CABILDO) cluster down --name $(CLUSTER_NAME)

.PHONY: clean
clean: ## delete what the targets made in this checkout
	@rm -rf $(VENV) $(CLI_VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
