# Two commands on a fresh machine: make demo, make test. Python 3.11+ and make are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo dev test test-slow lint format docs doctor lock clean

help: ## show this list
	@grep -E '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## install the locked environment into .venv

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=python3.12 …")'
	@echo "• making $(VENV) from requirements.lock (a few GB the first time, some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@
	@echo "• environment ready"

demo: setup ## sample data through the whole chain: tables, de-identified files, tensors, model, predictions
	@$(BIN)/imaging-pipeline demo

dev: setup ## the Dagster UI on the same instance
	@$(BIN)/imaging-pipeline dev

test: setup ## the default test suite
	@echo "• running the tests (some minutes; 'make test-slow' adds those that start servers)"
	@$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" && echo "• all passed. Next: make demo, then make dev"

test-slow: setup ## the tests that start servers or train longer
	@$(BIN)/python -m pytest -m slow

lint: setup ## lint, format check and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: setup ## renew the generated reference
	@$(BIN)/python -c "from pathlib import Path; from imaging_pipeline.lake.dictionary.pages import write_pages; write_pages(Path('docs/reference'))"

bench-%: setup ## bench-NAME: one benchmark of benchmarks/; the last line is one JSON object of its figures
	@$(BIN)/python benchmarks/$*.py

doctor: setup ## check this installation
	@$(BIN)/imaging-pipeline doctor

lock: ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --upgrade -o requirements.lock

clean: ## remove the environment and caches; data under .imaging_pipeline stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
