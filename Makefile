# One definition of every step; people, hooks and continuous integration call the same targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check fmt unit chaos bench clean

demo: $(VENV)/run ## run the worked example on the embedded default
	@sh examples/demo.sh $(BIN)/abe-router

test: check unit chaos ## everything that must pass: lint, types, layers, tests, and a short run of chaos

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/dev
	$(BIN)/python -m pytest

chaos: $(VENV)/run ## break it in every way we know, count what is lost and doubled; `make chaos ARGS=--long`
	@$(BIN)/python -m chaos $(ARGS)

bench: $(VENV)/run ## abe-router beside a hand-written loop and FastStream, as ratios; see docs/performance.md
	@$(BIN)/python -m bench

fmt: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .abe-router.db* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
