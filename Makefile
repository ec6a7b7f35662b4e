.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Build the virtual environment in .venv and install Errata with its development tools

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Errata needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

serve: $(INSTALLED) ## Start the service on http://127.0.0.1:8000 with the demonstration model
	$(BIN)/errata serve

test: $(INSTALLED) ## Run the tests
	$(BIN)/python -m pytest

check: $(INSTALLED) ## Lint, check formatting, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(INSTALLED) ## Train the demonstration model again from its facts and write its model card (about two hours on two cores)
	$(BIN)/python -m demo.train
	$(BIN)/python -m demo.evaluate

.PHONY: help install serve test check demo
