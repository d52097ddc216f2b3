# Every target sets itself up; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
# The installed version of everything is in constraints.txt. torch first, by its exact pin: a range asked for by
# another package would take a build with gigabytes of CUDA.
TORCH := torch==2.13.0
PIP := pip==26.3

.PHONY: help testnet test setup check lint test-net test-slow wheel-smoke bench clean

help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

testnet: setup ## a local network of real peers
	$(BIN)/iota-p2p testnet

test: setup ## the default tests (no real network, nothing slow)
	$(BIN)/python -m pytest -m "not net and not slow"

setup: .venv/.installed ## only create and fill .venv

check: lint test ## everything a change must pass: formatting, lint, types, import rules, default tests

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-net: setup ## tests with real daemons on loopback
	$(BIN)/python -m pytest -m net

test-slow: setup ## tests that take long
	$(BIN)/python -m pytest -m "slow and not net"

wheel-smoke: setup ## build, install into an empty environment, look from outside
	$(BIN)/python tests/wheel_smoke.py

# The shortest first; the last trains eight models and takes half an hour.
BENCHES := crypto audit settlement hop selection clasp replay network training boundary

bench: setup ## every benchmark; results under bench/results/
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python bench/$$name.py || exit 1; done

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt --editable ".[data,settlement]" --group dev
	@touch $@
