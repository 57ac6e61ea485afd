# One virtual environment for everything; `.venv/.ready` is made last, so an interrupted installation is finished.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test test-slow test-lowest lint format speed docs clean

search: .venv/.ready
	$(BIN)/nas-gym search --env NAS-Cell-v0 --agent reinforce --budget 1000 --seed 0

test: .venv/.ready
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/.ready
	$(BIN)/python -m pytest -m slow

test-lowest: .venv-lowest/.ready
	.venv-lowest/bin/python -m pytest -m "not slow"

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

speed: .venv/.ready
	$(BIN)/python -m nas_benchmarks.speed

# Opens as build/docs/index.html; warnings and broken links are errors.
docs: .venv/.ready
	PYTHONPATH=.docs $(BIN)/python -m nas_docs --out build/docs

.venv/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# The base installation with the lowest supported releases; tests that need torch are left out.
.venv-lowest/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --editable . \
		gymnasium==1.2.2 numpy==1.26.0 pyarrow==17.0.0 typer==0.26.0 rich==13.8.0 \
		pytest==8.2.0 pytest-timeout==2.3.1 hypothesis==6.100.0
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
