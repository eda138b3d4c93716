# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# Where bytecode is not written, every process compiles the package and all libraries again: it doubles the tests' time.
unexport PYTHONDONTWRITEBYTECODE

# Whole files are dealt to three processes of one thread each, since some tests wait: what a file prepares is prepared once.
PARALLEL ?= -n 3 --dist loadfile --durations=10
test test-all: export OMP_NUM_THREADS = 1

.PHONY: demo test times test-all collect lint types layers docs bench clean

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# What is imported is compiled when it is: compiling all 29,000 files would take two minutes.
# The stamp is newer than the files that decide what is installed, or the installation runs again.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# The pip of Python 3.11 takes three times as long to decide what to install.
	$(PIP) --upgrade pip
	$(PIP) -e '.[dev]'
	@# Without what it asks for: it pins a `requests` of 2020, which it never imports, and which others refuse.
	$(PIP) --no-deps torchattacks
	@# Afterwards, since that brings an older copy. Only the definitions of networks are used; the evaluation pins an older timm.
	$(PIP) --no-deps robustbench torchdiffeq geotorch
	touch $@

demo: $(VENV)/.installed  ## Train two small models on digits, assess both, write one report.
	$(BIN)/securitynet demo --out demo-report

test: $(VENV)/.installed  ## The tests that run on every change.
	$(BIN)/python -m pytest $(PARALLEL) --junitxml=.test-times.xml

times: $(VENV)/.installed  ## Records the last run's seconds by layer in tests/times.csv, beside those of earlier ones.
	$(BIN)/python tools/track_test_times.py --record

test-all: $(VENV)/.installed  ## The slow tests too.
	$(PIP) -e '.[slow-tests]'
	$(BIN)/python -m pytest $(PARALLEL) -m ''

collect: $(VENV)/.installed  ## Imports and compiles once what three processes would each compile at the same time.
	@output=$$($(BIN)/python -m pytest --collect-only --quiet 2>&1) || { echo "$$output"; exit 1; }

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

layers: $(VENV)/.installed  ## Who may import whom, and no circle of files.
	$(BIN)/lint-imports
	$(BIN)/python tools/find_circles.py

docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed  ## Beside the peers: benchmarks/RESULTS.md.
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf $(VENV) demo-report site benchmarks/.environments benchmarks/.work
