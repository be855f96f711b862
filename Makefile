# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export DO_NOT_TRACK := 1

.PHONY: demo test lint miniature clean

demo: $(STAMP)  ## the whole chain on the example concepts with the embedded model
	$(BIN)/ti-pipeline demo

test: $(STAMP)  ## every test that this machine can run
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check --fix .

miniature: $(STAMP)  ## make the embedded model anew, from the artwork to the card
	$(BIN)/python -m miniature.make
	$(BIN)/python -m miniature.examples
	$(BIN)/python -m miniature.evaluate
	$(BIN)/python -m miniature.card

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,miniature]'
	touch $@

clean:
	rm -rf build artifacts .pytest_cache .ruff_cache
