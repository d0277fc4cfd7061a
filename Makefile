# Everything runs in .venv, which is made when it is needed. `make` alone shows what there is.

PYTHON ?= python3
DEMO_ARGS ?=
TEST_ARGS ?=
MATRIX_ARGS ?=
BENCH_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

# Where it is set, every process compiles all of tenant_q and the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo docs test wheel chaos bench bench-peers bench-scheduler lint test-all clean

help:
	@echo "make demo      three tenants at work, until Ctrl-C; DEMO_ARGS=--once does the main job once and checks it"
	@echo "make test      all tests; TEST_ARGS go to pytest"
	@echo "make wheel     build the wheel into dist/ and follow the tutorials with it, in an empty environment"
	@echo "make chaos     some minutes of kills and outages, and figures of fairness; TEST_ARGS go to pytest"
	@echo "make bench     tenant_q beside Django-Q2: speed, latency, cost, memory; BENCH_ARGS=--quick takes a minute or two;"
	@echo "               make bench-peers installs Celery and dramatiq for it, into .venvs/peers"
	@echo "make bench-scheduler  what the schedules of 10,000 tenants cost, and how late they start, in a quarter of an hour;"
	@echo "               BENCH_ARGS='--tenants 200 --seconds 10 --burst 1000' is quick, BENCH_ARGS=--help shows all"
	@echo "make docs      the documentation as pages in site/, without the network; a broken link is an error"
	@echo "make lint      ruff, mypy, import-linter, codespell and the list of avoided phrases"
	@echo "make test-all  the tests with each Python found, Django and tenancy package; MATRIX_ARGS=--help for less"
	@echo "make clean     remove all that these commands made"
	@echo "PYTHON=...     the Python that .venv is made with; now $(PYTHON)"

demo: $(STAMP)
	@$(BIN)/python testproject/demo.py $(DEMO_ARGS)

# One tenancy package in full; the other at the seam and end to end. Each process has servers of its own; they often wait.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile $(TEST_ARGS)
	TENANCY=django_tenants $(BIN)/python -m pytest -n 3 --dist loadfile -m seam $(TEST_ARGS) || [ $$? -eq 5 ]  # 5: none

# Of a clean build: setuptools would pack what an earlier one left in build/.
wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	WHEEL="$$(ls dist/tenant_q-*.whl)" $(BIN)/python -m pytest tests/acceptance/test_tutorials.py \
	  tests/isolated/test_tutorial.py $(TEST_ARGS)

# The long form of what `make test` runs short; its figures are printed.
chaos: $(STAMP)
	CHAOS=long $(BIN)/python -m pytest -s tests/chaos tests/integration/test_claim_cost.py tests/integration/test_figures.py \
	  tests/integration/test_scale.py tests/acceptance/test_isolation.py tests/acceptance/test_forks.py \
	  tests/isolated/test_crowd.py tests/acceptance/test_rates.py tests/acceptance/test_code_schedules.py $(TEST_ARGS)

# Servers of its own; what is printed is also written to benchmarks/results.json.
bench: $(STAMP)
	@$(BIN)/python -m benchmarks.compare $(BENCH_ARGS)

# The peers have an environment of their own, with the same versions of Django and psycopg. Other versions may differ: Celery
# needs another version of the Redis client.
bench-peers: $(STAMP)
	@$(BIN)/python -m venv .venvs/peers
	@$(BIN)/python -m pip freeze --exclude-editable | grep -iE '^(django|psycopg)' > .venvs/peers/constraints.txt
	@.venvs/peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venvs/peers/constraints.txt \
	  --editable '.[tenants,embedded,demo]' --requirement benchmarks/peers.txt

# Servers of its own; what is printed is also written to benchmarks/results-scheduler.json.
bench-scheduler: $(STAMP)
	@$(BIN)/python -m benchmarks.scheduler $(BENCH_ARGS)

# Not --quiet: it takes the warnings away before --strict counts them.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The documentation is in site/index.html"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_words.py
	$(BIN)/codespell

test-all: $(STAMP)
	@$(BIN)/python scripts/test_matrix.py $(MATRIX_ARGS)

clean:
	rm -rf .venv .venvs *.egg-info build dist site testproject/media
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Error: $(PYTHON) is missing or older than Python 3.11; install one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Error: $(PYTHON) cannot make a virtual environment; install its venv module (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[tenants,embedded,dev]'
	@touch $@
