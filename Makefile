# Two commands: `make demo` and `make test`. Both work from an empty clone with Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest

.PHONY: demo test test-lowest lint clean

# The virtual environment, made anew when the requirements change. torch and torchvision are resolved in one call.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --editable ".[test]"
	touch $@

demo: $(VENV)/installed
	SKLEARN_ACS_RESULTS=demo $(BIN)/python examples/digits.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

# The tests with the lowest versions that pyproject.toml allows. Some of those have wheels for Python 3.11 alone.
$(LOWEST)/installed: pyproject.toml .ci/lowest.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --editable ".[test]" --constraint .ci/lowest.txt
	touch $@

test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(LOWEST)
