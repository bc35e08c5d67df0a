# Needs Python 3.11 or later and pip; everything else is installed into VENV.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GRID ?= picturebook-grid.png

.PHONY: demo test

demo: $(STAMP)
	$(BIN)/erasebench picturebook grid --out $(GRID)
	@echo "Everything that the built-in model draws: $(abspath $(GRID))"

test: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[test]'
	touch $@
