# Everything below runs from .venv; nothing is installed outside this folder and nothing needs root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPLOY := .venv-deploy
JOBS ?= 2
UV_VERSION := 0.13.9
STARTED := $(shell date +%s)

# The stamps live inside the environment, so that removing it is enough to start over.
INSTALLED := $(VENV)/.installed
EDITABLE := $(VENV)/.editable

.PHONY: help setup demo up test unit wire system lint manifests verify lock clean

help: ## show this list
	@awk -F ':[^#]*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(EDITABLE) ## make .venv with everything, again whenever requirements.lock changed

demo: setup ## show chatd at work on a real model, then stop (an Ollama with a model, or a 127 MB download)
	@$(BIN)/python -m deploy.demo.run --since $(STARTED)

up: setup ## the demo's set-up, kept running in the foreground until Ctrl-C
	@$(BIN)/python -m deploy.demo.run --stay

# Files side by side: most of their time the system tests wait for processes.
test: setup ## run every test: unit, wire and system
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

unit: setup ## run the tests that need no socket (seconds)
	$(BIN)/python -m pytest tests/unit

wire: setup ## run the tests that speak HTTP with a scripted upstream
	$(BIN)/python -m pytest tests/wire

system: setup ## run the tests with a real Redis and real processes
	$(BIN)/python -m pytest tests/system

lint: setup manifests ## check style, format, types, the direction of imports, and the manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

manifests: $(DEPLOY)/.installed ## check Dockerfile, Compose file and Kubernetes manifests against their schemas
	$(DEPLOY)/bin/python -m deploy.check

verify: lint test ## lint and test: what CI runs

# All locks come from pyproject.toml. uv, in an environment of its own that is thrown away, resolves
# for every platform at once; it is kept from this machine's settings, so that the files name no
# package source and come out the same everywhere.
lock: ## resolve requirements.lock and those of the demo, the image and the manifests anew
	@tmp="$$(mktemp -d)"; trap 'rm -rf "$$tmp"' EXIT; \
	$(PYTHON) -m venv "$$tmp"; \
	"$$tmp/bin/pip" install --quiet uv==$(UV_VERSION); \
	compile=(env -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_DEFAULT_INDEX -u UV_FIND_LINKS \
		"$$tmp/bin/uv" pip compile --no-config --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command 'make lock'); \
	"$${compile[@]}" --extra embedded --group dev --output-file requirements.lock pyproject.toml; \
	"$${compile[@]}" --no-deps --group demo --output-file requirements-demo.lock; \
	"$${compile[@]}" --group image --constraint requirements.lock --output-file requirements-run.lock \
		pyproject.toml; \
	"$${compile[@]}" --group deploy --output-file requirements-deploy.lock

clean: ## remove the environments, the caches and var/ (with the jobs that `make up` kept there)
	rm -rf $(VENV) .venv-demo $(DEPLOY) var build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "chatd needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
			"name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making $(VENV) from requirements.lock: a download of about 60 MB, 260 MB on disk"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(EDITABLE): $(INSTALLED) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEPLOY)/.installed: requirements-deploy.lock
	@echo "making $(DEPLOY) from requirements-deploy.lock: a download of about 40 MB, 230 MB on disk"
	@$(PYTHON) -m venv --clear $(DEPLOY)
	@$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-deploy.lock
	@touch $@
