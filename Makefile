.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
INSTALLED := $(VENV)/.installed
# CounterFact's and zsRE's training records, which are not part of the project, where they lie beside it.
SHARED := $(if $(wildcard ../shared/data/counterfact-train.json),--shared ../shared/data)
TORCH := 'torch>=2.8,<=2.13.0'
# With no GPU, torch's CPU build, which is a tenth of the size; where its index cannot be reached, whatever pip finds.
CPU_TORCH := $(if $(shell command -v nvidia-smi),,--retries 0 --index-url https://download.pytorch.org/whl/cpu)

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

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
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(INSTALLED) ## Lint, check formatting, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(INSTALLED) ## Train everything in demo/ again and write its cards (some four hours on two cores)
	$(BIN)/python -m demo.train
	$(BIN)/python -m demo.evaluate
	$(BIN)/python -m demo.calibrate
	mkdir -p runs/scope
	$(BIN)/python -m demo.reading_cases --output runs/reading.jsonl --size 120000
	$(BIN)/errata train counterfactual runs/reading.jsonl --output demo/counterfactual --steps 500 --learning-rate 3e-4 --unlikelihood 0.1
	$(BIN)/errata train counterfactual runs/reading.jsonl --from demo/counterfactual --output demo/counterfactual \
		--steps 220 --examples-per-step 64 --learning-rate 2e-4 --unlikelihood 0.1 --kept 0.5
	$(BIN)/python -m demo.scope.pairs --output runs/scope/pairs.jsonl --size 300000 --seed 1 $(SHARED)
	$(BIN)/errata train scope runs/scope/pairs.jsonl --output demo/scope/classifier.safetensors \
		--steps 3000 --batch-size 64 --rank 64 --false-positives 0.03
	mkdir -p runs/mend
	$(BIN)/python -m demo.mend_cases --output runs/mend/cases.jsonl
	$(BIN)/errata train mend runs/mend/cases.jsonl --output demo/mend/mend.safetensors --steps 1700
	$(BIN)/errata stats --output demo/atlas-2018-stats

benchmark: $(INSTALLED) ## Compare the editors on the bundled model, and write it to docs/benchmarks (an hour at most)
	$(BIN)/python -m benchmarks.comparison

benchmarks: $(INSTALLED) ## Measure all that docs/benchmarks claims, and write it there (hours)
	$(BIN)/python -m benchmarks.hot_fixes
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.scope
	$(BIN)/python -m benchmarks.serac
	$(BIN)/python -m benchmarks.decisions
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.mend
	$(BIN)/python -m benchmarks.tracing
	$(BIN)/python -m benchmarks.rome
	$(BIN)/python -m benchmarks.costs
	$(BIN)/python -m benchmarks.comparison
	$(BIN)/python -m benchmarks.versions
	$(BIN)/python -m benchmarks.bakes
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.answer_cache
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.crashes
	$(BIN)/python -m benchmarks.replicas
	$(BIN)/python -m benchmarks.readme

.PHONY: help install serve test check demo benchmark benchmarks
