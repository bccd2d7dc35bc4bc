# One definition of every step; people, hooks and continuous integration call the same targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that run tests, and rows of chaos at a time: more than there are cores, because most of them wait. In long
# rows workers are killed all the time, and six such rows at a time take longer to recover than they may on two cores.
WORKERS ?= 6
ROWS ?= $(if $(findstring --long,$(ARGS)),3,6)
# The faults of the run of chaos in `make test`: a worker, a file, a server, and all at once.
QUICK := kill reload crash all
# What pytest gets, as `-k reload`, and what chaos and bench get.
TESTS ?=
ARGS ?=

# The versions that were tested, on every Python that pyproject.toml allows; `make lock` makes it. pip and uv read
# these variables, the second pair for what builds a package.
CONSTRAINTS := .ci/constraints.txt
PINNED := PIP_CONSTRAINT=$(CONSTRAINTS) UV_CONSTRAINT=$(CONSTRAINTS) PIP_BUILD_CONSTRAINT=$(CONSTRAINTS) UV_BUILD_CONSTRAINT=$(CONSTRAINTS)
# uv installs in a fraction of the time that pip takes; it is not required. Only pip compiles by itself.
INSTALL := $(PINNED) $(if $(shell uv --version 2>/dev/null),uv pip install --quiet --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
# The tests start hundreds of processes, and each would compile the package where PYTHONDONTWRITEBYTECODE is set.
COMPILE := $(BIN)/python -m compileall -q abe_router chaos
# Tests that failed run once more; see there. pytest keeps what it compiles, also where PYTHONDONTWRITEBYTECODE is set.
RERUN = PYTHONDONTWRITEBYTECODE= $(BIN)/python .ci/rerun.py $@
PYTEST = $(RERUN) $(BIN)/python -m pytest
PARALLEL := --numprocesses $(WORKERS) --dist worksteal
# The files with marked tests, because pytest takes seconds to read all others. tests/conftest.py checks the patterns.
HEAVY = $(or $(TESTS),$(shell grep -rlE 'mark\.heavy' tests --include='test_*.py'))
ALONE = $(or $(TESTS),$(shell grep -rlE 'mark\.alone|BackendConformance' tests --include='test_*.py'))

.PHONY: help demo test thorough check fmt unit parallel heavy alone long chaos fuzz bench docs coverage package lock newest lowest clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/run ## run the worked example on the embedded default
	@sh examples/demo.sh $(BIN)/abe-router

# Both print the time of each part at the end.
SUBMAKE = $(MAKE) --no-print-directory
test: $(VENV)/dev ## run what must pass before each commit: lint, types, layers, tests, a short run of chaos; 4 minutes
	@.ci/timed >/dev/null; trap .ci/timed EXIT; \
		$(SUBMAKE) --jobs=2 timed-check timed-parallel && \
		$(SUBMAKE) timed-alone && \
		$(SUBMAKE) timed-chaos ARGS='--fault $(QUICK)'

thorough: $(VENV)/dev ## run the rest: servers that start slowly, crash points, fuzz, every fault; 8 minutes
	@.ci/timed >/dev/null; trap .ci/timed EXIT; \
		$(SUBMAKE) --jobs=2 timed-heavy timed-fuzz ARGS='--seed 1 --jobs 1' && \
		$(SUBMAKE) timed-chaos ARGS=

timed-%:
	@.ci/timed $* $(SUBMAKE) $*

check: $(VENV)/dev ## lint, formatting, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/lint-imports

fmt: $(VENV)/dev ## format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: parallel heavy alone ## run the tests alone; `make unit TESTS='tests/flows -k reload'`

parallel: $(VENV)/dev
	$(PYTEST) $(PARALLEL) -m 'not alone and not heavy' $(TESTS)

# The heavy tests disturb others by their syncs and their load, but not each other. tests/conftest.py orders their files.
heavy: $(VENV)/dev
	@$(PYTEST) --numprocesses 8 --dist loadfile --no-loadscope-reorder -m 'heavy and not alone' $(HEAVY)

# Most of them wait for a moment and look whether it comes in time: four at once use half of two cores.
alone: $(VENV)/dev
	@$(PYTEST) --numprocesses 4 --dist worksteal -m alone $(ALONE)

long: $(VENV)/dev ## run the tests with those of the long form, and long runs of chaos and fuzz, as every night
	@ABE_ROUTER_LONGER=1 $(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory chaos ARGS=--long
	@$(MAKE) --no-print-directory fuzz ARGS=--long

chaos: $(VENV)/run ## inject every fault, count what is lost and duplicated; `make chaos ARGS=--long`
	@$(BIN)/python -m chaos --rows $(ROWS) $(ARGS)

fuzz: $(VENV)/dev ## run random and damaged input, with a seed; `make fuzz ARGS=--long`
	@$(BIN)/python -m fuzz $(ARGS)

bench: $(VENV)/run ## compare with a hand-written loop and FastStream, as ratios; see docs/performance.md
	@$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/docs ## build the documentation site into build/site; every broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

MEASURED = $(RERUN) $(BIN)/coverage run -m pytest --timeout 180
# The other heavy tests run mostly in processes that are killed, and leave no coverage.
REDIS := tests/backends/test_redis_cluster.py tests/backends/test_redis_sentinel.py
coverage: $(VENV)/dev ## run the tests under coverage, child processes included; fails below the floor
	$(BIN)/coverage erase
	$(MEASURED) $(PARALLEL) -m 'not alone and not heavy' $(TESTS)
	$(MEASURED) --numprocesses 2 --dist loadfile -m 'heavy and not alone' $(or $(TESTS),$(REDIS))
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

package: ## build the wheel and the sdist into dist/, install each into an empty environment and use it
	$(PINNED) PYTHON=$(PYTHON) .ci/package

lock: ## take the newest versions that pyproject.toml allows into .ci/constraints.txt; needs uv
	@echo '# The versions that were tested. `make lock` makes this file.' >$(CONSTRAINTS).new
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate --all-extras --group release pyproject.toml >>$(CONSTRAINTS).new
	@mv $(CONSTRAINTS).new $(CONSTRAINTS)

# Makes an environment of its own without the constraints, by a resolution of uv, and runs the tests in it.
RESOLVED = uv venv --quiet --clear --python $(PYTHON) $(VENV)-$@ && \
	uv pip install --quiet --compile-bytecode --python $(VENV)-$@/bin/python --resolution $(1) --editable '.[dev]' && \
	touch $(VENV)-$@/dev && $(MAKE) --no-print-directory unit VENV=$(VENV)-$@

newest: ## run the tests on the newest versions that pyproject.toml allows; needs uv
	@$(call RESOLVED,highest)

lowest: ## run the tests on the lowest versions that pyproject.toml allows; needs uv
	@$(call RESOLVED,lowest-direct)

clean: ## remove everything that the other targets made
	rm -rf $(VENV) $(VENV)-* build dist .abe-router.db* .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/docs: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/run # all that it takes to run is there too
