# make demo    retrain a small model on the sample data: no GPU, no Docker, no account
#              (TASK=support_messages: on the second task's)
# make test    run every test that this machine allows (REQUIRE_DOCKER=1, REQUIRE_BROWSER=1,
#              REQUIRE_TOOLS=1: skips for lack of an engine, of Chromium, of node or PostgreSQL, fail)
# make lint    ruff and mypy
# make bench   the side-by-side figures of benchmarks/
# make faults  kill the driver 200 times, and all else that tests/faults does (hours; needs Docker)
# make images  build the four stage images

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
# torch's own index of wheels without CUDA, used where no GPU is and the index can be reached.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# llama.cpp's unmodified converter, from the sdist of llama-cpp-python.
export LLAMA_CPP_DIR ?= $(CURDIR)/.cache/llama.cpp

# Each sample names its task.
TASK ?= liga_relevance
DEMO  = $(firstword $(shell grep -lx 'task: $(TASK)' examples/*/demo.yaml))

.PHONY: demo test lint bench faults images
.DELETE_ON_ERROR:

demo: $(VENV)/.installed $(LLAMA_CPP_DIR)/convert_lora_to_gguf.py
	@test -n "$(DEMO)" || { echo "no examples/*/demo.yaml has the line 'task: $(TASK)'"; exit 1; }
	$(PY) -m examples.tiny_qwen3 $(shell sed -n 's/^  path: //p' $(DEMO)) --sample $(dir $(DEMO))
	$(PY) -m driver run --config $(DEMO)

test: $(VENV)/.installed $(LLAMA_CPP_DIR)/convert_lora_to_gguf.py lint
	$(PY) -m pytest

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy .

bench: $(VENV)/.installed $(LLAMA_CPP_DIR)/convert_lora_to_gguf.py
	@for file in benchmarks/[a-z]*.py benchmarks/gpu; do $(PY) -m benchmarks.$$(basename $$file .py) --quick; done

faults: $(VENV)/.installed $(LLAMA_CPP_DIR)/convert_lora_to_gguf.py
	FAULTS=200 REQUIRE_DOCKER=1 $(PY) -m pytest tests/faults

images:
	GIT_COMMIT=$$(git rev-parse HEAD) docker compose -f compose.retrain.yml build

$(LLAMA_CPP_DIR)/convert_lora_to_gguf.py: | $(VENV)/.installed
	$(PY) -m images.gguf.fetch_converter $(LLAMA_CPP_DIR)

# torch is gigabytes smaller without CUDA. In this order: a wheel that pip's own settings offer
# (PIP_FIND_LINKS), torch's CPU index, and where neither can be had, or a GPU is here, the plain one.
$(VENV)/.installed: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || test -x $(PY) || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } || \
	  { echo "Python lacks venv: sudo apt install python3-venv"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch ..."
	@$(PY) -c 'import torch, sys; sys.exit(not torch.__version__.startswith("2.13.0"))' 2>/dev/null || \
	 $(PY) -m pip install -q --no-index --no-deps torch==2.13.0 2>/dev/null || \
	 { ! command -v nvidia-smi >/dev/null && \
	   $(PY) -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/torch/", timeout=10)' \
	     $(TORCH_CPU_INDEX) 2>/dev/null && \
	   $(PY) -m pip install -q --index-url $(TORCH_CPU_INDEX) torch==2.13.0; } || \
	 $(PY) -m pip install -q torch==2.13.0
	@echo "Installing the driver and what its stages need ..."
	$(PY) -m pip install -q -e '.[local,dev]'
	touch $@

# The compilers that rendered TypeScript and Vue files are checked with (tests/rendered).
.cache/node/.installed: tests/rendered/node/package.json tests/rendered/node/package-lock.json
	mkdir -p .cache/node
	cp tests/rendered/node/package.json tests/rendered/node/package-lock.json .cache/node
	cd .cache/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=5
	touch $@
