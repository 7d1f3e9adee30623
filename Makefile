# Each target does all of its own set-up; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
export PYTHON

# Options of `make soak`.
SOAK ?=

# Stages of `make test`, in order; `make test STAGES="core python"` runs some of them.
STAGES ?=
# `make fuzz`: how long each target runs, and from which seed.
FUZZ_SECONDS ?= 300
FUZZ_SEED ?=
export FUZZ_SECONDS FUZZ_SEED

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## A short night of ComCam: killed, caught up, ingested, replicated, verified, and its report
	@tools/setup.sh demo
	@tools/install.sh
	@tools/demo/demo.sh

.PHONY: test
test: ## Every test: C++, sanitizers, aarch64, fuzz (short), Python, lint
	@tools/setup.sh test
	@tools/test.sh $(STAGES)

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZ_SECONDS each (300)
	@tools/setup.sh test
	@tools/fuzz.sh

.PHONY: soak
soak: ## A night of 10000 small images under all faults, with processes killed (SOAK="--images 1000" for less)
	@tools/setup.sh test
	@tools/install.sh tests
	@.venv/bin/python tests/soak/night.py $(SOAK)

.PHONY: bench
bench: ## The benchmark tables, C++ and Python
	@tools/setup.sh test
	@tools/install.sh tests
	@tools/bench.sh

.PHONY: build
build: ## Build the package and install it into .venv
	@tools/setup.sh run
	@tools/install.sh

.PHONY: lint
lint: ## ruff, mypy, clang-format
	@tools/setup.sh test
	@.venv/bin/python -m pytest --quiet tests/quality/test_style.py

.PHONY: format
format: ## Bring Python and C++ into form
	@tools/setup.sh test
	@tools/format.sh

.PHONY: wheel
wheel: ## Wheel and source archive in dist/
	@tools/setup.sh run
	@tools/wheel.sh

.PHONY: lock
lock: ## Compile the lock files in requirements/ anew
	@tools/setup.sh run
	@tools/lock.sh

.PHONY: clean
clean: ## Remove everything that was made here
	rm -rf .venv build dist demo wheelhouse .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find python tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} +
