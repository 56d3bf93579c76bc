# make run     STORE and Pop on ml-100k, and the table       make test    the tests
# make lint    ruff                                          make install the environment alone
# PYTHON=python3.11 chooses the interpreter; TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch from another index;
# ARGS="--epochs=2" adds settings to the run or the tests.
PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed

.PHONY: run test lint install

run: install
	$(BIN)/recbole-genrec run --model=STORE,Pop --dataset=ml-100k $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(STAMP)

# torch first and by itself, so that TORCH_INDEX serves nothing else
$(STAMP): pyproject.toml constraints.txt scripts/install_recbole.sh
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(PIP) -c constraints.txt -e ".[dev]"
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then sh scripts/install_recbole.sh $(BIN)/python; fi
	@touch $@
