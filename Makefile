# make test: everything, from nothing. make lab: only what the tests need besides Python (tests/lab/setup_lab.py).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LAB ?= $(CURDIR)/.cache/lab
export MELTBENCH_LAB := $(LAB)
BESIDE := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: test lint types unit lab bench wheel clean

# Most tests wait for what they measure, so three files run side by side on two cores, the slow ones (faults, lab) first.
# Then, one by one, those that need the machine for themselves: they are marked "alone".
test: lint types lab
	$(BIN)/python -m pytest --cov=meltbench --cov-report= --durations=15 -m "not alone" $(BESIDE)
	$(BIN)/python -m pytest --cov=meltbench --cov-append --cov-report=term:skip-covered --durations=15 -m alone

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/python -m pytest tests/unit tests/contract

lab: $(VENV)/.ready
	$(BIN)/python tests/lab/setup_lab.py $(LAB)

# What meltbench claims of its own speed (docs/performance.md). BENCH="observer --quick" chooses.
bench: lab
	$(BIN)/python -m benchmarks $(BENCH)

wheel: $(VENV)/.ready
	MELTBENCH_PROBE_TARGETS=all $(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
