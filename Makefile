# Needs CPython 3.11 and the package registry; everything else goes into .venv.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test quick lint format bench clean

demo: .venv/demo  ## twenty spoken dialogues through every stage, to out/demo
	$(BIN)/echo-targets demo

test: lint  ## everything that CI runs
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

quick: .venv/dev  ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev  ## side by side with what one would use instead
	$(BIN)/python -m benchmarks.job
	$(BIN)/python -m benchmarks.tokenize
	$(BIN)/python -m benchmarks.transcribe
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.runners
	$(BIN)/python -m benchmarks.rehearsal --fraction 0.01

clean:
	rm -rf .venv out build *.egg-info

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv

.venv/%: setup.cfg constraints.txt | .venv/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$*]'
	touch $@
