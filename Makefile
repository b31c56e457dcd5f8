# make table   sets everything up in .venv and prints the MobileNetV2 table of this machine
# make test    sets everything up in .venv and runs the tests
# Nothing outside .venv and the user's cache folder is touched; after the set-up no network is needed.

# The newest Python that all engines have wheels for; override with `make PYTHON=/path/to/python3.12 table`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: table test lint lock clean
.DELETE_ON_ERROR:

table: $(VENV)/table.done
	@$(BIN)/edge table

test: $(VENV)/test.done
	@$(BIN)/python -m pytest

lint: $(VENV)/test.done
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "edge needs Python 3.11, 3.12 or 3.13 (Debian, Ubuntu: sudo apt install python3 python3-venv);" \
		"name another one with: make PYTHON=/path/to/python table"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed" \
		"(Debian, Ubuntu: sudo apt install python3-venv)"; exit 1; }

# The engines and converters of the table. The pretrained weights are asked for once, here.
$(VENV)/table.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up .venv for the table (once; about 1.3 GB) ..."
	@$(PIP) install --editable '.[table]' --constraint constraints.txt
	@$(BIN)/edge table --fetch-weights
	@touch $@

# Everything that the tests touch. PyTorch comes first and alone, so that an index with CPU builds can serve it.
$(VENV)/test.done: $(VENV)/table.done
	@echo "setting up .venv for the tests (once) ..."
	@$(PIP) install 'torch==2.13.0' --constraint constraints.txt
	@$(PIP) install --editable '.[table,onnxscript,transformers,serve,test]' --constraint constraints.txt
	@touch $@

# Writes down the set that was tested: run it after changing pyproject.toml, then run the tests.
lock: $(VENV)/test.done
	@{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist
