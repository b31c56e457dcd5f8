# make table   sets everything up in .venv and prints the MobileNetV2 table of this machine
# make chat    sets .venv up for language models, in seconds, with a prebuilt llama.cpp
# make llama   compiles llama.cpp and its server for this CPU: quicker, and the only one that quantizes and shares out
# make test    sets everything up in .venv and runs the tests; BUSY=4 runs them beside four processes that burn the cores
# make check   what to run while you work: lint, types, architecture and a core of the tests, in a minute or so
# Nothing outside .venv and the user's cache folder is touched; after the set-up no network is needed.

# The newest Python that all engines have wheels for; override with `make PYTHON=/path/to/python3.12 table`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STEP := $(BIN)/python tests/tools/progress.py
# The tests run in one process per core. A process holds up to 3 GB of engines: JOBS=2 on a machine with little memory.
JOBS := $(shell nproc 2>/dev/null || echo 2)
BUSY := 0
# For pytest, such as ARGS='--slow tests/boards'.
ARGS :=
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS)
# The core of the tests: the laws, every engine's contract, the pipeline and its proof on small ONNX networks, the
# command line; no real networks, no Keras but in the contract. pytest fails where a file has moved.
CORE := tests/test_architecture.py tests/device_profiles tests/runtimes \
	$(addprefix tests/converters/,pipeline/test_convert.py pipeline/test_verification.py check onnx/test_precisions.py) \
	$(addprefix tests/edge/,test_cli.py conversion/test_planning.py compatibility workers doctor)
# Of those folders what takes seconds a test: it starts servers, processes or TensorFlow.
NOT_CORE := $(addprefix --ignore=tests/runtimes/,engines/test_keras.py engines/test_keras_2.py standalone board \
	llm/test_http_session.py measurement/test_protocols.py)

# Containers like to set it, and then each of the thousands of processes that the tests start compiles this project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: table chat llama test check lint lock clean
.DELETE_ON_ERROR:

table: $(VENV)/table.done
	@$(BIN)/edge table

test: $(VENV)/test.done
ifeq ($(BUSY),0)
	@$(PYTEST) $(ARGS)
else
	@$(BIN)/python tests/tools/busy.py $(BUSY) -- $(PYTEST) $(ARGS)
endif

# What is quick comes first; then mypy fills the gaps that the tests leave on the cores, and speaks after them.
check: $(VENV)/test.done
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy >$(VENV)/mypy.log 2>&1 & types=$$!; \
		$(PYTEST) --quiet -m 'not data' $(NOT_CORE) $(CORE) $(ARGS); tests=$$?; \
		wait $$types; types=$$?; cat $(VENV)/mypy.log; exit $$((tests ? tests : types))

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
	@$(STEP) "installing the table's engines" -- $(PIP) install --editable '.[table]' --constraint constraints.txt
	@$(BIN)/edge table --fetch-weights
	@touch $@

chat: $(VENV)/chat.done
	@echo "ready: $(BIN)/edge chat MODEL.gguf, or $(BIN)/edge serve MODEL.gguf"

llama: $(VENV)/chat.done $(VENV)/llama-server.done
	@echo "ready: $(BIN)/edge chat MODEL.gguf and $(BIN)/edge serve MODEL.gguf now compute with llama.cpp as compiled here"

$(VENV)/chat.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up .venv for language models (once; about 60 MB) ..."
	@$(STEP) "installing what language models need" -- \
		$(PIP) install --editable '.[chat,serve,xllamacpp]' --constraint constraints.txt
	@touch $@

# llama-cpp-python comes as source alone, and is built for the very CPU. Past pip's cache: that would hand out a wheel
# which was built with other flags. The folder of the build is kept until llama-server has been linked to the same
# libraries, which takes a minute and a half more; edge looks for it in .venv/llama.cpp.
# Without AMX: GCC drops the tile configuration that llama.cpp writes, and the first product ends the process
# (github.com/ggml-org/llama.cpp/pull/26954). In C as well, which is what the library says of itself.
# LLAMA_PATCH corrects the pictures of CLIP; a copy next to llama-server tells edge so (server_program.py).
LLAMA_VERSION := $(shell sed -n 's/^llama_cpp_python==//p' constraints.txt)
LLAMA := llama-cpp-python==$(LLAMA_VERSION)
LLAMA_SOURCE := $(abspath $(VENV))/llama-source
LLAMA_BUILD := $(abspath $(VENV))/llama-build
LLAMA_PATCH := runtimes/llm/llama_cpp/llava_class_token.patch
$(VENV)/llama-server.done: constraints.txt $(LLAMA_PATCH) | $(VENV)/bin/python
	@command -v c++ >/dev/null || { echo "llama.cpp is compiled here for this CPU, which needs a C++ compiler" \
		"(Debian, Ubuntu: sudo apt install build-essential); 'make chat' does without"; exit 1; }
	@echo "compiling llama.cpp for this CPU (once; about 6 minutes on two cores) ..."
	@rm -rf $(LLAMA_SOURCE) $(LLAMA_BUILD) && mkdir -p $(LLAMA_SOURCE) $(VENV)/sdist $(VENV)/llama.cpp
	@$(PIP) install --quiet scikit-build-core cmake ninja
	@$(PIP) download --quiet --no-deps --no-binary :all: --dest $(VENV)/sdist '$(LLAMA)'
	@tar xzf $(VENV)/sdist/llama_cpp_python-$(LLAMA_VERSION).tar.gz -C $(LLAMA_SOURCE) --strip-components 1
	@patch --quiet --strip 1 --directory $(LLAMA_SOURCE)/vendor/llama.cpp <$(LLAMA_PATCH)
	@if c++ -march=native -dM -E -x c++ - </dev/null 2>&1 | grep -q AMX_INT8; then \
			export CFLAGS="$$CFLAGS -mno-amx-int8" CXXFLAGS="$$CXXFLAGS -mno-amx-int8"; fi; \
		export PATH="$(abspath $(BIN)):$$PATH" CMAKE_GENERATOR=Ninja; \
		CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DGGML_RPC=ON -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON" \
		$(STEP) --count "compiling llama.cpp" -- \
		$(PIP) wheel --verbose --no-deps --no-cache-dir --no-build-isolation --config-settings build-dir=$(LLAMA_BUILD) \
		--wheel-dir $(VENV)/wheels $(LLAMA_SOURCE) \
		&& cmake $(LLAMA_BUILD) -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_UI=OFF \
		-DLLAMA_USE_PREBUILT_UI=OFF >/dev/null \
		&& $(STEP) --count "compiling llama-server" -- cmake --build $(LLAMA_BUILD) --target llama-server
	@$(PIP) install --quiet --force-reinstall --no-deps --no-index --find-links $(VENV)/wheels '$(LLAMA)'
	@$(PIP) install --quiet '$(LLAMA)' --constraint constraints.txt
	@cp -P $(LLAMA_BUILD)/bin/llama-server $(LLAMA_BUILD)/bin/*.so* $(VENV)/llama.cpp/ 2>/dev/null \
		|| cp -P $(LLAMA_BUILD)/bin/llama-server $(LLAMA_BUILD)/bin/*.dylib $(VENV)/llama.cpp/
	@cp $(LLAMA_PATCH) $(VENV)/llama.cpp/
	@rm -rf $(LLAMA_SOURCE) $(LLAMA_BUILD)
	@touch $@

# Everything that the tests touch. PyTorch comes first and alone, so that an index with CPU builds can serve it.
$(VENV)/test.done: $(VENV)/table.done $(VENV)/llama-server.done
	@echo "setting up .venv for the tests (once) ..."
	@$(STEP) "installing PyTorch" -- $(PIP) install 'torch==2.13.0' --constraint constraints.txt
	@$(STEP) "installing what the tests need" -- $(PIP) install --editable \
		'.[table,tflite-quantizer,onnxscript,transformers,cluster,chat,serve,gguf,llama-cpp,xllamacpp,test]' \
		--constraint constraints.txt
	@touch $@

# Writes down the set that was tested: run it after changing pyproject.toml, then run the tests.
lock: $(VENV)/test.done
	@{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist
