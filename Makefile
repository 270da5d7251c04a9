# `make train` and `make test` need Python >= 3.10 and make; they build .venv on first use.
PYTHON ?= python3
EXTRAS ?=
ARGS ?=
CUDA ?= cuda13
VENV := .venv
BIN := $(VENV)/bin

GPU_NETS := tabular wide mnist mnist@512 cifar cifar@512 lstm transformer

comma := ,
extras = $(if $(EXTRAS),$(comma)$(EXTRAS))

.PHONY: train test notebooks proof gpu lint build clean

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

# on a machine with a card (a driver too old for CUDA 13: CUDA=cuda12): the tests that need one, then the
# benchmarks, kept under benchmarks/results/
gpu: extras := ,test,peers
gpu: $(VENV)/installed-$(CUDA)
	-$(BIN)/python -m tinygrad_zen doctor
	$(BIN)/python -m pytest tests/gpu
	$(BIN)/python benchmarks/kernels.py --backends cupy cuda torch-cuda --keep
	$(BIN)/python benchmarks/train.py --device cuda --nets $(GPU_NETS) --keep
	$(BIN)/python benchmarks/crossover.py --between cupy cuda torch-cuda --keep
	$(BIN)/python benchmarks/scaling.py --device cuda --keep

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
