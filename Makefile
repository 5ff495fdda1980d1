# Every verb that README.md names. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow speed lint types clean

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

# Bytecode is compiled once, here: a run starts up to six Python processes, on systems that never write it too.
# The stamp is older than what it was made from only when that changed, so a second `make setup` does nothing.
$(INSTALLED): requirements.lock.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Python 3.11 or 3.12 is needed; name it with: make PYTHON=python3.12 setup"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock.txt)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps -r requirements.lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(INSTALLED)  ## install everything, exact versions, into .venv

demo: setup  ## real CT and MR volumes to verified weights and runs/demo/report.html, on CPU or GPU
	@$(BIN)/python tools/demo.py

test: setup  ## the tests, without the slow ones
	@$(BIN)/python -m pytest -q -m "not slow"

test-slow: setup  ## all the tests, the slow ones too
	@$(BIN)/python -m pytest -q

speed: setup  ## how far training is from what this machine can do; docs/speed.md has a run
	@$(BIN)/jointssl speed all

lint: setup  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup  ## mypy on the package and the tools
	@$(BIN)/mypy

clean:  ## remove the environment and all runs
	rm -rf $(VENV) runs
