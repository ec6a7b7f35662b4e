.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
INSTALLED := $(VENV)/.installed
TORCH := 'torch>=2.8,<=2.13.0'
# With no GPU, torch's CPU build, which is a tenth of the size; where its index cannot be reached, whatever pip finds.
CPU_TORCH := $(if $(shell command -v nvidia-smi),,--retries 0 --index-url https://download.pytorch.org/whl/cpu)

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Build the virtual environment in .venv and install Errata with its development tools

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Errata needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	$(PIP) $(CPU_TORCH) $(TORCH) || $(PIP) $(TORCH)
	$(PIP) --editable '.[dev]'
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

demo: $(INSTALLED) ## Train the demonstration model again from its facts and write its model card (an hour and a half on two cores)
	$(BIN)/python -m demo.train
	$(BIN)/python -m demo.evaluate
	$(BIN)/python -m demo.calibrate

benchmark: $(INSTALLED) ## Measure hot-fixing the whole drift set and write docs/benchmarks
	$(BIN)/python -m benchmarks.hot_fixes

.PHONY: help install serve test check demo benchmark
