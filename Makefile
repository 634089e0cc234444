# Everything is done inside .venv; the only thing needed beforehand is Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install sweep test test-slow soak lint clean-venv
.DEFAULT_GOAL := sweep

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 2; }
	@echo "installing into .venv (once; a few minutes; 7 GB with torch's CUDA libraries, and 4 GB more in the temporary folder meanwhile)"
	$(PYTHON) -m venv .venv
	@# without byte code, which takes more than a minute: a module gets its own when it is first imported
	@# uv does not read pip's settings: where it cannot install, pip does
	@{ command -v uv >/dev/null && uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; } || \
		$(BIN)/pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: .venv/installed  ## the environment alone; with uv, where it is there, faster than with pip

sweep: .venv/installed  ## run the conditioning sweep on the bundled digits
	@$(BIN)/mpdit sweep sweeps/conditioning.yaml

test: .venv/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not soak" --durations 20

test-slow: .venv/installed  ## kills, whole sweeps, a browser, every command in the docs; two processes side by side
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "slow and not soak" --durations 20

soak: .venv/installed  ## what `make test-slow` leaves out
	@grep -rhoE --include='*.py' 'Adds to CI: [^"]*' tests
	$(BIN)/python -m pytest -m soak --durations 20

lint: .venv/installed  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports

clean-venv:
	rm -rf .venv
