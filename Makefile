# make run     STORE and Pop on ml-100k, and the table       make test    the tests
# make lint    style, types, floors and documentation        make install the environment alone
# PYTHON=python3.11 chooses the interpreter; ARGS="--seed=3" adds settings to the run or the tests;
# FEW_MINUTES= runs with the default settings of the dataset, which take two to three times as long;
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch from another index.
PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools

.PHONY: run test lint install

# What make run saves against the default settings: 5 epochs of 16, 6 of the tokenizer's 15, no alignment
# task (a quarter of a step), one validation. See docs/results.md.
FEW_MINUTES := --STORE.epochs=5 --STORE.tokenizer_epochs=6 --STORE.lambda_align=0 --STORE.eval_step=5

run: $(STAMP)
	$(BIN)/recbole-genrec run --model=STORE,Pop --dataset=ml-100k $(FEW_MINUTES) $(ARGS)

test: $(TOOLS)
	$(BIN)/python -m pytest $(ARGS)

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@find recbole_genrec -name '*.py' -exec wc -l {} + | awk '$$2 != "total" && $$1 > 400 \
	    {print $$2 " has " $$1 " lines: one idea a file, at most 400 lines"; bad = 1} END {exit bad}'

install: $(TOOLS)

# Modules are compiled when they are first imported, not all at once (--no-compile): a run needs few of them.
# torch first and by itself, so that TORCH_INDEX serves nothing else
$(STAMP): pyproject.toml constraints.txt recbole_genrec/install.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(PIP) -c constraints.txt -e .
	$(BIN)/python -m recbole_genrec.install
	@touch $@

# what tests, lint and documentation need besides; make run does without
$(TOOLS): $(STAMP)
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch $@
