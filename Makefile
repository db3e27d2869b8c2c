# One entry to every tool. Each target makes its own .venv from python3 >= 3.11 and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := --constraint constraints.txt
# What `make test-all` looks for.
VERSIONS := 3.11 3.12 3.13 3.14

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "healthmw needs Python 3.11 or newer; say which: make PYTHON=python3.13 ..."; exit 1; }
	@echo "Installing the development environment into $(VENV): a minute or two ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --quiet --upgrade $(CONSTRAINTS) pip
	@$(PIP) install --quiet --quiet $(CONSTRAINTS) --group dev --editable '.[all]'
	@touch $@

.PHONY: venv
venv: $(STAMP) ## Make the development environment in .venv

.PHONY: demo
demo: $(STAMP) ## See it at work: healthy, degraded, broken, mended
	@$(BIN)/python examples/demo.py

.PHONY: test
test: $(STAMP) ## Run the tests, with coverage (ARGS="tests/test_x.py -k word" for some of them)
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

.PHONY: test-all
test-all: ## Run the tests on every Python >= 3.11 that is found, without coverage
	@for version in $(VERSIONS); do \
	  python=$$(.ci/find-python $$version) || { echo "== Python $$version: not found"; continue; }; \
	  echo "== Python $$version: $$python"; \
	  $(MAKE) --no-print-directory PYTHON="$$python" VENV=.venvs/$$version venv || exit 1; \
	  .venvs/$$version/bin/python -m pytest $(ARGS) || exit 1; \
	  passed="$$passed $$version"; \
	done; \
	test -n "$$passed" && echo "Passed on Python$$passed"

.PHONY: test-newest
test-newest: ## Run the tests on the newest versions that PyPI has
	@rm -rf .venvs/newest
	@$(MAKE) --no-print-directory VENV=.venvs/newest CONSTRAINTS= test

LOWEST := .venvs/lowest
# What talks to other packages; the rest of the tests does not depend on their versions. The contract
# of probes is left out: anyio before 4.16 leaves a socket to the garbage collector when it is
# cancelled as it connects. So does the test client of older Starlettes with its streams.
LOWEST_TESTS := tests/probes tests/frameworks tests/services tests/test_asgi.py tests/test_wsgi.py \
  tests/test_background.py tests/test_django.py tests/test_grpc.py tests/test_metrics.py \
  tests/test_sentry.py tests/test_webhooks.py tests/cli/test_watch.py \
  --ignore=tests/probes/test_contract.py --ignore=tests/services/test_contract.py

.PHONY: test-lowest
test-lowest: ## Run the tests of probes and frameworks on the lowest versions that are allowed
	@rm -rf $(LOWEST)
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --quiet --upgrade pip uv
	@$(LOWEST)/bin/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST)/bin/python \
	  --extra all --output-file $(LOWEST)/requirements.txt pyproject.toml
	@$(LOWEST)/bin/python -m pip install --quiet --quiet --requirement $(LOWEST)/requirements.txt \
	  --group lowest --editable .
	$(LOWEST)/bin/python -m pytest -W "ignore:Unclosed <MemoryObject:ResourceWarning" \
	  $(or $(ARGS),$(LOWEST_TESTS))

.PHONY: check
check: lint dead-code types contract docs changelog ## All that is checked without running the tests

.PHONY: format
format: $(STAMP) ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lint
lint: $(STAMP) ## Check format and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: dead-code
dead-code: $(STAMP) ## Look for code that nothing uses
	$(BIN)/vulture

.PHONY: types
types: $(STAMP) ## Check the types
	$(BIN)/mypy $(wildcard healthmw tests typing_tests examples benchmarks .ci/*.py)
	$(BIN)/pyright --pythonpath $(BIN)/python typing_tests
	@# It looks for the package on the path alone, and does not follow what an editable install leaves.
	PYTHONPATH="$(CURDIR):$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  $(BIN)/pyright --verifytypes healthmw --ignoreexternal

.PHONY: contract
contract: $(STAMP) ## Check the direction of imports
	$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: $(STAMP) ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -q -n -W --keep-going docs docs/_build/html

.PHONY: changelog
changelog: $(STAMP) ## Show what the next release's notes would say
	@$(BIN)/towncrier build --draft --version next

.PHONY: fault-table
fault-table: $(STAMP) ## Find out what the probes say to each fault, and write the page (ARGS="redis" for some)
	@$(BIN)/python -m tests.faults.table $(ARGS)

.PHONY: screens
screens: $(STAMP) ## Make the pictures of the command line in docs/images anew (needs tmux)
	@$(BIN)/python docs/screens.py $(ARGS)

BENCHMARKS = $(filter-out page,$(basename $(notdir $(wildcard benchmarks/[!_]*.py))))

.PHONY: bench
bench: $(STAMP) ## Measure it all beside the peers, and write the page (ARGS=--quick to have a look)
	@for name in $(BENCHMARKS); do \
	  $(BIN)/python -m benchmarks.$$name $(or $(ARGS),--json benchmarks/results/$$name.json) || exit 1; \
	done
	@$(BIN)/python -m benchmarks.page

RUNS ?= 100000

.PHONY: fuzz
fuzz: $(STAMP) ## Send the endpoint what coverage finds, RUNS times by ASGI and by WSGI (Linux)
	@$(PIP) install --quiet --quiet --group fuzz
	$(BIN)/python -m tests.fuzz_by_coverage asgi $(RUNS)
	$(BIN)/python -m tests.fuzz_by_coverage wsgi $(RUNS)

.PHONY: abuse
abuse: $(STAMP) ## Hunt for what must never happen (HEALTHMW_ABUSE=20 for twenty times as long)
	$(BIN)/python -m pytest tests/abuse $(ARGS)

# What else the machine does is not to be measured: the processes of the matrix come first, if they may.
FIRST := $(shell chrt --rr 1 true 2>/dev/null && echo chrt --rr 1)

.PHONY: abuse-table
abuse-table: $(STAMP) ## Have each fault, measure how the app's own route fares, and write the page
	@for interface in asgi wsgi; do \
	  HEALTHMW_ABUSE_TABLE=1 HEALTHMW_ABUSE=3 $(FIRST) $(BIN)/python -m pytest -q \
	    tests/abuse/systems/test_matrix.py -k "$$interface-" || exit 1; \
	done
	@$(BIN)/python -m tests.abuse.systems.faults

MINUTES ?= 30

.PHONY: soak
soak: $(STAMP) ## Have faults at random for MINUTES on two servers at once, and compare verdict and truth
	MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/abuse/systems/test_soak.py -s -o faulthandler_timeout=0 $(ARGS)

.PHONY: mutants
mutants: $(STAMP) ## Change the engine in small ways; do the tests notice? Writes the page (ARGS="_breaker" for some)
	$(BIN)/python -m tests.abuse.mutants $(ARGS)

.PHONY: wheel
wheel: $(STAMP) ## Build the sdist and the wheel into dist, and try the wheel
	@rm -rf dist
	@$(BIN)/python -m build --quiet --no-isolation --outdir dist
	@$(BIN)/python .ci/try_wheel.py dist

.PHONY: lock
lock: ## Choose the versions in constraints.txt anew, on the oldest Python supported
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "What 3.11 can have, newer ones can: make lock PYTHON=python3.11"; exit 1; }
	@rm -rf .venvs/lock
	@$(PYTHON) -m venv .venvs/lock
	@.venvs/lock/bin/python -m pip install --quiet --quiet --upgrade pip
	@.venvs/lock/bin/python -m pip install --quiet --quiet --group dev --editable '.[all]'
	@{ echo '# Made by `make lock`: the versions that development and CI use. Users get what pyproject.toml says.'; \
	  .venvs/lock/bin/python -m pip list --format=freeze --exclude-editable --exclude setuptools \
	  | LC_ALL=C sort --ignore-case; } >constraints.txt
	@rm -rf .venvs/lock

.PHONY: clean
clean: ## Remove everything that these targets make
	rm -rf .venv .venvs build dist docs/_build .demo .ci-cache .coverage* .hypothesis \
	  .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
