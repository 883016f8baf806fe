# Set-up and the usual jobs. `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint check bench docs clean

demo: $(VENV)/.installed
	$(BIN)/amden generate si-melt --n 2 --atoms 256 --seed 0 --out out/si-melt.extxyz --overwrite
	$(BIN)/amden analyze out/si-melt.extxyz --reference examples/si-melt-reference.extxyz --out out/si-melt-analysis --overwrite
	@echo "Look at out/si-melt-analysis: the picture shows the generated glass against simulated silicon."

# What tests compile, some with other constants, is kept apart from what the program compiles.
test: export NUMBA_CACHE_DIR := $(CURDIR)/.pytest_cache/kernels
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --jaxtyping-packages=amden,beartype.beartype -n 2 -m "not gpu and not compiled"
	$(BIN)/python -m pytest -m compiled

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: test lint docs

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed-dev
	for f in benchmarks/*.py; do $(BIN)/python $$f || exit 1; done

clean:
	rm -rf $(VENV) out build dist site

INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[dev]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[docs]'
	touch $(VENV)/.installed $@
