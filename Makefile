# Everything is done inside .venv; the only thing needed beforehand is Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test test-slow test-sweeps test-beside lint clean-venv
.DEFAULT_GOAL := sweep

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 2; }
	@echo "installing into .venv (once; a few minutes; 7 GB with torch's CUDA libraries, and 4 GB more in the temporary folder meanwhile)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

sweep: .venv/installed  ## run the conditioning sweep on the bundled digits
	@$(BIN)/mpdit sweep sweeps/conditioning.yaml

test: .venv/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not soak"

WITHOUT_RAY := tests/slow/test_processes.py tests/slow/test_distances.py

test-slow: .venv/installed  ## kills, whole sweeps, a browser; what starts no Ray runs beside them
	$(MAKE) -j 2 test-sweeps test-beside

test-sweeps: .venv/installed
	$(BIN)/python -m pytest -m slow --durations 20 tests/slow $(WITHOUT_RAY:%=--ignore=%)

test-beside: .venv/installed
	$(BIN)/python -m pytest -m slow tests/mpdit tests/pipelines $(WITHOUT_RAY)

lint: .venv/installed  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean-venv:
	rm -rf .venv
