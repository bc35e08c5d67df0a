# Needs Python 3.11 or later and pip; everything else is installed into VENV.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo docs test test-slow

demo: $(STAMP)
	$(BIN)/erasebench run --methods dm2,esd-u --concepts nudity,church

docs: $(STAMP)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo "open build/docs/index.html"

test: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports
	# Compiled files are kept, whatever the environment says: a hundred processes would compile everything anew.
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder --durations=15

test-slow: $(STAMP)
	$(BIN)/pytest -m slow --durations=15

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install 'pip>=25' # earlier ones try hundreds of combinations of what S3's packages ask for
	$(BIN)/python -m pip install --no-compile --editable '.[test]'
	# With all cores, where pip compiles with one; some packages have templates that are no Python.
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@
