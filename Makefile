# Thin calls of `python -m clearway …` (see its --help); `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help install run release replay drill rollback stop status clean test fast lint lock

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
CLEARWAY := $(PY) -m clearway
PIP := $(PY) -m pip install --disable-pip-version-check --no-deps --require-hashes
# The first installation shows what it does; a later one would say of hundreds of packages that they are there.
ifneq ($(wildcard $(STAMP)),)
QUIET := -q
INSTALLS := Bringing $(VENV) up to the lock, quietly; some minutes if a large package changed.
else
INSTALLS := Installing the locked packages into $(VENV); about 3 GB, some minutes.
endif
# Workers of the tests, which take group by group in order; 0 runs them in one process, as plain pytest does.
WORKERS ?= 2
PRODUCT ?= flights
# WEEKS=39 replays the whole year; FAULT=unit_change|feed_outage|carrier_remap plants an abrupt, announced fault.
RUN_ARGS = --product $(PRODUCT) $(if $(WEEKS),--weeks $(WEEKS)) $(if $(FAULT),--fault $(FAULT)) $(ARGS)

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(STAMP) ## Make the virtual environment from the hash-checked lock

run: $(STAMP) ## The whole loop: start everything, first release, weeks of traffic, retraining (WEEKS=, FAULT=)
	@$(CLEARWAY) run $(RUN_ARGS)

release: $(STAMP) ## Release a model from the newest landed batch
	@$(CLEARWAY) release --product $(PRODUCT) $(ARGS)

replay: $(STAMP) ## Play further weeks through the running stack (WEEKS=, FAULT=)
	@$(CLEARWAY) replay $(RUN_ARGS)

drill: $(STAMP) ## Plant slow, wrong and crashing copies of the champion; each must go back by itself
	@$(CLEARWAY) drill --product $(PRODUCT) $(ARGS)

rollback: $(STAMP) ## Bring the previous champion back, in under a second, with Airflow up or down
	@$(CLEARWAY) rollback --product $(PRODUCT) $(ARGS)

status: $(STAMP) ## Who serves what, health, ports, latest runs, memory
	@$(CLEARWAY) status --product $(PRODUCT) $(ARGS)

stop: $(STAMP) ## Stop everything that run started
	@$(CLEARWAY) stop $(ARGS)

clean: $(STAMP) ## Stop and remove .clearway: data, models, logs, databases
	@$(CLEARWAY) clean $(ARGS)

test: $(STAMP) ## Everything that needs no GPU, linters included, fast tests first
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "not gpu"

fast: $(STAMP) ## The fast tests only, on two workers (WORKERS=)
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "not slow and not airflow and not gpu and not browser"

lint: $(STAMP) ## ruff, mypy, import contracts, sizes
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

lock: ## Resolve requirements.in into the two hash-checked locks (needs uv)
	@$(PYTHON) .ci/lock $(ARGS)

$(STAMP): requirements.txt requirements-cpu.txt requirements-cuda.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "$(PYTHON) is Python %d.%d; 3.11 or newer is needed. Name one: make PYTHON=python3.11 …" % sys.version_info[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The virtual environment could not be made. On Debian and Ubuntu: sudo apt install python3-venv, then try again." >&2; exit 1; }
	@echo "$(INSTALLS)" >&2
	@if ! command -v nvidia-smi >/dev/null; then \
	$(PIP) -q -r requirements-cpu.txt 2>/dev/null || echo "pip finds no CPU build of torch; taking the default one." >&2; fi
	$(PIP) $(QUIET) -r requirements.txt
	@if $(PY) -c 'import importlib.metadata as m, sys; sys.exit("+cpu" not in m.version("torch"))'; \
	then echo "torch is the CPU build: no CUDA libraries needed." >&2; \
	else echo "torch is the CUDA build: installing its CUDA libraries (several GB more)." >&2 && \
	$(PIP) $(QUIET) -r requirements-cuda.txt; fi
	$(PY) -m pip install $(QUIET) --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
