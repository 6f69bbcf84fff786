# `make` prints what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
PROCESSES ?= -n 3 --dist loadgroup

.PHONY: help install demo test test-slow test-all lint serve bench clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

install: $(STAMP) ## set up .venv with the exact versions of constraints.txt

demo: $(STAMP) ## a small made-up data set, centralized and federated, offline; prints the results
	$(BIN)/fedpatch demo --out $(DEMO)

lint: $(STAMP) ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint ## lint and the fast tests, in two processes
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not e2e"

test-slow: $(STAMP) ## the slow tests and those with real servers and browsers, in three processes
	$(BIN)/pytest $(PROCESSES) -m "(slow or e2e) and not exhaustive"

test-all: $(STAMP) ## all tests, also those that are too long for every commit
	$(BIN)/pytest $(PROCESSES)

serve: $(STAMP) ## a Prefect server on loopback, the work pool, all deployments and a worker; Ctrl-C or SIGTERM ends all of it
	PATH="$(CURDIR)/$(BIN):$$PATH" exec sh scripts/serve.sh # exec: a SIGTERM to make reaches it

bench: $(STAMP) ## speed and memory against peers, on the images in FEDPATCH_REAL_DATA; BENCH=--quick at reduced size
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@mkdir -p runs
	$(BIN)/python -m benchmarks --json runs/benchmarks.json $(BENCH)

clean: ## remove what make demo and the tools left (not .venv, not runs/)
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
