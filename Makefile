# `make train` and `make test` need Python >= 3.10 and make; they build .venv on first use.
PYTHON ?= python3
EXTRAS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

comma := ,
extras = $(if $(EXTRAS),$(comma)$(EXTRAS))

.PHONY: train test notebooks proof lint build clean

train: $(VENV)/installed-plots
	$(BIN)/python -m tinygrad_zen train

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

# all of the course, run and stored anew; ARGS="--only 01 --check" for less
notebooks: $(VENV)/installed-notebooks
	$(BIN)/python notebooks/run.py $(ARGS)

# all figures of benchmarks/results/proof.md; ARGS="--only kills --quick" for less
proof: $(VENV)/installed-proof
	$(BIN)/python benchmarks/proof.py $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

build: $(VENV)/installed-dev
	$(BIN)/python -m build

# one stamp for each set of extras: installed again only when setup.py or the set changes
$(VENV)/installed-%: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*$(extras)]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs
