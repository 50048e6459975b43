# The few commands of this repository. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
TRAM := $(BIN)/tram

.PHONY: help install demo test check bench lock clean

help:  ## List the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: .venv/.installed  ## Make .venv with the product and its development tools

.venv/.installed: pyproject.toml requirements/product.lock requirements/dev.lock tools/install.sh
	@PYTHON="$(PYTHON)" sh tools/install.sh

demo: .venv/.product  ## Bring up the platform, deploy an app and a model, and talk to both
	@$(BIN)/python -m tramontane.processes.demo

.venv/.product: pyproject.toml requirements/product.lock tools/install.sh
	@PYTHON="$(PYTHON)" sh tools/install.sh product

check: install  ## Lint, types, layers: the quick half of `make test`
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache && $(BIN)/pyright

test: check  ## Everything: check, then all tests, end to end included
	@$(BIN)/pytest

bench: install  ## Side-by-side benchmarks: make bench [ONLY=wake]
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

lock: install  ## Choose dependency versions anew
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --upgrade --extra demo --extra postgresql pyproject.toml -o requirements/product.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --upgrade requirements/dev.in -o requirements/dev.lock

clean:  ## Remove what the commands above made
	@rm -rf .venv .pytest_cache .ruff_cache build dist
