# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export DO_NOT_TRACK := 1

.PHONY: demo test lint miniature s3 clean

demo: $(STAMP)  ## the whole chain on the example concepts with the embedded model
	$(BIN)/ti-pipeline demo

test: $(STAMP)  ## every test that this machine can run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder  # one thread each: two that share a core wait for each other

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

miniature: $(STAMP)  ## make the embedded model anew, from the artwork to the card
	$(BIN)/python -m miniature.make
	$(BIN)/python -m miniature.examples
	$(BIN)/python -m miniature.evaluate
	$(BIN)/python -m miniature.card

S3_DATA ?= build/s3
PORT ?= 8333

s3: $(STAMP)  ## a real S3-compatible server on this machine, its data under S3_DATA; ends with Ctrl-C
	PORT=$(PORT) $(BIN)/python -m ti_pipeline.versioning.local_server $(S3_DATA)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,miniature]'
	touch $@

clean:
	rm -rf build artifacts .mypy_cache .pytest_cache .ruff_cache
