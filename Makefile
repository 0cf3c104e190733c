# Every target installs what it needs into .venv first; `make help` lists them.
# A CPU build of torch that pip already knows (PIP_FIND_LINKS, an extra index) wins over the CUDA build of that version.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
STAMP := .venv/.installed
# Debian packages that the slow tests need; installed only where apt and the right to use it are there.
DEBIAN_PACKAGES := chromium postgresql prometheus

.DEFAULT_GOAL := help
.PHONY: help install sweep test test-slow lint format bench lock clean
.SILENT:

help: ## List the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with the locked versions and Pharos itself

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || test -n "$(PYTHON)" || { \
		echo "Pharos needs Python 3.11 or newer, and none was found: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv
	echo "Installing the locked versions into .venv: some minutes the first time"
	# Torch goes first, so that the choice between CPU and CUDA is made by its pin alone.
	$(PIP) install "$$(grep '^torch==' requirements.lock)" "$$(grep '^setuptools==' requirements.lock)"
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $(STAMP)

sweep: install ## Run the quickstart: 24 trials, the best one merged and registered
	$(BIN)/pharos sweep search_spaces/quickstart.yaml

test: lint ## Run the checks and all tests but the slow ones
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: install ## Run the slow tests
	if [ -n "$(DEBIAN_PACKAGES)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes $(DEBIAN_PACKAGES) >/dev/null; fi
	$(BIN)/python -m pytest -q -m slow

lint: install ## Check style, types and the direction of imports
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet || { echo "Run 'make format' on:" >&2; $(BIN)/ruff format --check >&2; }
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo >.venv/lint-imports.txt || { cat .venv/lint-imports.txt >&2; exit 1; }

format: install ## Put code into the house style
	$(BIN)/ruff check --quiet --fix
	$(BIN)/ruff format --quiet

bench: install ## Run the benchmarks: a table, and JSON beside the scripts
	$(BIN)/python tests/benchmarks

lock: ## Resolve pyproject.toml anew and write requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install -qq '.[dev]'
	{ head -n 1 requirements.lock; build/lock/bin/pip freeze --all --exclude pip --exclude pharos \
		| sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } >build/requirements.lock
	mv build/requirements.lock requirements.lock && rm -rf build/lock

clean: ## Remove .venv, caches and build outputs; results of sweeps stay
	rm -rf .venv build dist platform/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find platform tests -name __pycache__ -prune -exec rm -rf {} +
