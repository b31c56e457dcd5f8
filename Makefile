# make table   sets everything up in .venv and prints the MobileNetV2 table of this machine
# make chat    sets .venv up for language models, in seconds, with a prebuilt llama.cpp
# make llama   compiles llama.cpp for this CPU: quicker, and the only one that quantises and shares out
# make test    sets everything up in .venv and runs the tests
# Nothing outside .venv and the user's cache folder is touched; after the set-up no network is needed.

# The newest Python that all engines have wheels for; override with `make PYTHON=/path/to/python3.12 table`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: table chat llama test lint lock clean
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

chat: $(VENV)/chat.done
	@echo "ready: $(BIN)/edge chat MODEL.gguf, or $(BIN)/edge serve MODEL.gguf"

llama: $(VENV)/chat.done $(VENV)/llama.done
	@echo "ready: $(BIN)/edge chat MODEL.gguf now computes with llama.cpp as compiled here"

$(VENV)/chat.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up .venv for language models (once; about 60 MB) ..."
	@$(PIP) install --editable '.[chat,serve,xllamacpp]' --constraint constraints.txt
	@touch $@

# llama-cpp-python comes as source alone, and is built for the very CPU. Into a folder of its own, and past pip's
# cache: that would hand out a wheel which was built with other flags.
# Without AMX: GCC drops the tile configuration that llama.cpp writes, and the first product ends the process
# (github.com/ggml-org/llama.cpp/pull/26954). In C as well, which is what the library says of itself.
LLAMA := llama-cpp-python==$(shell sed -n 's/^llama_cpp_python==//p' constraints.txt)
$(VENV)/llama.done: constraints.txt | $(VENV)/bin/python
	@command -v c++ >/dev/null || { echo "llama.cpp is compiled here for this CPU, which needs a C++ compiler" \
		"(Debian, Ubuntu: sudo apt install build-essential); 'make chat' does without"; exit 1; }
	@echo "compiling llama.cpp for this CPU (once; about 5 minutes on two cores) ..."
	@if c++ -march=native -dM -E -x c++ - </dev/null 2>&1 | grep -q AMX_INT8; then \
			export CFLAGS="$$CFLAGS -mno-amx-int8" CXXFLAGS="$$CXXFLAGS -mno-amx-int8"; fi; \
		CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DGGML_RPC=ON" $(PIP) wheel --no-deps --no-cache-dir \
		--wheel-dir $(VENV)/wheels '$(LLAMA)'
	@$(PIP) install --find-links $(VENV)/wheels '$(LLAMA)' --constraint constraints.txt
	@touch $@

# Everything that the tests touch. PyTorch comes first and alone, so that an index with CPU builds can serve it.
$(VENV)/test.done: $(VENV)/table.done $(VENV)/llama.done
	@echo "setting up .venv for the tests (once) ..."
	@$(PIP) install 'torch==2.13.0' --constraint constraints.txt
	@$(PIP) install --editable '.[table,onnxscript,transformers,chat,serve,gguf,llama_cpp,xllamacpp,test]' --constraint constraints.txt
	@touch $@

# Writes down the set that was tested: run it after changing pyproject.toml, then run the tests.
lock: $(VENV)/test.done
	@{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist
