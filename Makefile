# The two commands for a fresh machine: `make demo` and `make test`. Both make .venv by themselves, once.
#
#   make demo KEEP=1                   keep the service running at the end, for its console
#   make smallest                      search the smallest student that keeps 95% of its teacher; KEEP=1 as well
#   make demo PYTHON=python3.12        another Python
#   make demo PIP_ARGS="…"             more arguments for pip install, as an index with CPU builds of torch

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
# One stamp for what is to be installed: a change of either file installs again.
STAMP := $(VENV)/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)

.PHONY: demo smallest test test-long test-gpu chaos lint format clean lock notices audit digests console console-check screenshots

demo: $(STAMP)
	@$(BIN)/python examples/emoji/demo.py $(if $(KEEP),--keep)

smallest: $(STAMP)
	@$(BIN)/python examples/emoji/smallest.py $(if $(KEEP),--keep)

# Three workers keep two cores busy, because many tests wait for processes; the types are checked beside them. TEST_ARGS passes
# more to pytest, as in `make test TEST_ARGS="-k scheduler"`. Bytecode is kept whatever the user's setting is: the tests start
# hundreds of processes, and each would compile what it imports.
TEST_WORKERS ?= 3
TEST_ARGS ?=
test: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/lint-imports
	@unset PYTHONDONTWRITEBYTECODE; nice -n 10 $(BIN)/mypy & types=$$!; \
	    $(BIN)/pytest -n $(TEST_WORKERS) --dist loadgroup --durations 20 $(TEST_ARGS); tests=$$?; \
	    wait $$types && exit $$tests

test-long: $(STAMP)
	@$(BIN)/pytest -m long

test-gpu: $(STAMP)
	@$(BIN)/pytest -m gpu

chaos: $(STAMP)
	@$(BIN)/python -m bench.chaos

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)
	@$(BIN)/ruff check --fix .

# For maintainers, with access to a package index: what the image installs, its notices and bill of materials, known faults.
#
#   make lock LOCK_ARGS=--upgrade                                           newer releases, within constraints.txt
#   make lock LOCK=deploy/requirements-cpu.lock LOCK_ARGS="--torch-backend cpu"   CPU builds of torch
TOOLS := $(VENV)/tools
TOOL_VERSIONS := pip==26.3 uv==0.13.9 pip-audit==2.10.1
IMAGE_EXTRAS := server workers s3 pgvector openvino export
LOCK ?= deploy/requirements.lock
LOCK_ARGS ?=
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command 'make lock' -c constraints.txt $(LOCK_ARGS)
lock: $(TOOLS)/bin/uv
	@$(COMPILE) pyproject.toml $(IMAGE_EXTRAS:%=--extra %) -c deploy/torch.constraints.txt -o $(LOCK) > /dev/null
	@printf 'hatchling\nnumpy\npybind11\nsetuptools\nwheel\n' | $(COMPILE) - -o deploy/build.lock > /dev/null
	@printf 'hnswlib\n' | $(COMPILE) --no-deps - -o deploy/hnswlib.lock > /dev/null

REPORT := $(TOOLS)/report.json
notices: $(TOOLS)/bin/uv
	@PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= $(TOOLS)/bin/python -m pip install --quiet --dry-run --ignore-installed --no-deps \
	    --require-hashes --only-binary :all: --no-binary hnswlib --report $(REPORT) -r deploy/requirements.lock -r deploy/hnswlib.lock
	@$(PYTHON) deploy/supply_chain.py $(REPORT) deploy

audit: $(TOOLS)/bin/uv
	@$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r deploy/requirements.lock -r deploy/hnswlib.lock -r deploy/build.lock

digests:
	@$(PYTHON) deploy/digests.py docker-compose.yml deploy/Dockerfile

$(TOOLS)/bin/uv:
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check $(TOOL_VERSIONS)

# The web console; needs Node 20.19 or newer. console-check also runs ESLint and Prettier, and fails if the built files in the
# repository are not those of the source.
BUILT := server/tinyclip_server/console/built
NODE_STAMP := console/node_modules/.package-lock.json
console: $(STAMP) $(NODE_STAMP)
	@$(BIN)/python console/openapi.py > console/openapi.json
	@cd console && npm run --silent types && npm run --silent check && npm run --silent test && npm run --silent build

console-check: console
	@$(BIN)/python console/lint.py --again
	@git diff --exit-code --stat -- $(BUILT) && test -z "$$(git ls-files --others -- $(BUILT))" || { \
	    echo "the built console differs from its source: run make console and commit $(BUILT)"; exit 1; }

# The pictures of the console in README and docs, of the demo's job; needs Chromium.
screenshots: $(STAMP)
	@$(BIN)/python docs/screenshots.py $(URL)

$(NODE_STAMP): console/package-lock.json
	@command -v npm > /dev/null || { echo "make console needs Node 20.19 or newer with npm"; exit 1; }
	@cd console && npm ci --no-progress --silent
	@touch $@

clean:
	rm -rf $(VENV) console/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "TinyCLIP needs Python 3.11 or newer, but $(PYTHON) is `$(PYTHON) --version 2>&1`; name another: make PYTHON=/path/to/python3.12"; \
	    exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "Installing TinyCLIP and what it needs into $(VENV): once, some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) hnswlib > $(VENV)/hnswlib.log 2>&1 || \
	    echo "No hnswlib (it needs a C++ compiler and Python's headers, see $(VENV)/hnswlib.log): indexes are searched exactly"
	@rm -f $(VENV)/installed-*
	@touch $@
