# The same commands at the desk and in CI. A fresh Debian 12 needs: apt install git make python3 python3-venv
# Another Python: make PYTHON=python3.13 test

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all:
NPM := --no-audit --no-fund --no-update-notifier --loglevel=error
RUN_TIME := $(VENV)/.run-time
READY := $(VENV)/.ready
SDK_NAMES := $(shell cut -d' ' -f1 tests/sdk-versions.txt)
SDKS := $(SDK_NAMES:%=.sdk/%/.ready) .sdk/npm/.ready
PEER_PROGRAMS := $(patsubst %,build/peers/%/.ready,litellm sglang-router)
WHEELS := build/wheels/.ready
CODE := cortexd tests packaging

.PHONY: help ready demo test check style types coverage build deb compare smoke boot bench sim fleet-sim torture mutants meter lock clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo      the daemon with simulated neurons; prints what to try'
	@echo 'make test      all tests'
	@echo 'make check     what CI checks: style, types, tests with coverage, a reproducible build'
	@echo 'make build     dist/cortexd.pyz, everything in one file'
	@echo 'make deb       dist/cortexd_VERSION_amd64.deb, that file as a Debian package'
	@echo 'make smoke     start that file and send a request through it'
	@echo 'make boot      boot a systemd of its own, and try the package on it; needs root'
	@echo 'make bench     requests per second, CPU and memory, beside what they are measured against;'
	@echo '               PEERS=1: beside LiteLLM and sglang-router too, which are fetched for it'
	@echo 'make sim       crash the simulated ledger for SECONDS=600, and print the totals'
	@echo 'make fleet-sim run simulated fleets for SEEDS=1000 seeds, and print what was broken'
	@echo 'make mutants   break the ledger on purpose, one way after the other: tests must notice each'
	@echo 'make torture   kill, stop and starve the daemon for ROUNDS=500, and check its books'
	@echo 'make meter     storm real engines with REQUESTS=2000, and compare their counters with the ledger'
	@echo 'make ready     fetch what all of these need, and do nothing with it'
	@echo 'make lock      renew the lock files from pyproject.toml'
	@echo 'make clean     remove everything that make made'

ready: $(READY) $(SDKS) $(WHEELS)

demo: $(RUN_TIME)
	$(PY) -m cortexd demo $(ARGS)

test: $(READY) $(SDKS) $(WHEELS)
	$(PY) -m pytest --numprocesses auto --dist loadgroup $(ARGS)

check: style types coverage compare

style: $(READY)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/ruff check $(CODE)

types: $(READY)
	$(PY) -m mypy --strict

coverage: $(READY) $(SDKS) $(WHEELS)
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage report

build: $(WHEELS)
	$(PY) packaging/build_zipapp.py

deb: build
	$(PY) packaging/build_deb.py

# Two processes, two hash seeds: what could differ between two builds does.
compare: deb
	PYTHONHASHSEED=1 $(PY) packaging/build_zipapp.py --out build/second/cortexd.pyz
	cmp dist/cortexd.pyz build/second/cortexd.pyz
	PYTHONHASHSEED=1 $(PY) packaging/build_deb.py --pyz build/second/cortexd.pyz --out build/second
	for deb in build/second/*.deb; do cmp "$$deb" "dist/$${deb##*/}" || exit 1; done
	@echo 'two builds are equal'

smoke: build
	$(PY) packaging/smoke.py dist/cortexd.pyz

boot: $(READY) $(WHEELS)
	$(PY) -m pytest tests/installed $(ARGS)

bench: $(READY) $(if $(PEERS),$(PEER_PROGRAMS))
	$(PY) -m tests.bench $(if $(PEERS),--peers) $(ARGS)

sim: $(READY)
	$(PY) -m tests.sim --seconds $(or $(SECONDS),60) $(ARGS)

fleet-sim: $(READY)
	$(PY) -m tests.fleetsim --seeds $(or $(SEEDS),1000) $(ARGS)

mutants: $(READY)
	$(PY) -m tests.mutants $(ARGS)

torture: $(READY)
	$(PY) -m tests.torture --rounds $(or $(ROUNDS),100) $(ARGS)

meter: $(READY) .sdk/gguf/.ready
	$(PY) -m tests.engines.meter --requests $(or $(REQUESTS),2000) $(ARGS)

lock: $(READY)
	$(PY) packaging/lock.py
	cd packaging/npm && npm install --package-lock-only --omit-lockfile-registry-resolved $(NPM)

clean:
	rm -rf $(VENV) .sdk build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'cortexd needs Python 3.11 or later; name one: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
	  || { echo 'Python has no venv; on Debian: apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The checkout is put on the path rather than installed: nothing to build, nothing to fall behind.
$(RUN_TIME): packaging/requirements.lock | $(PY)
	$(PIP) -r packaging/requirements.lock
	$(PY) -c 'import os, sysconfig; \
	  open(sysconfig.get_path("purelib") + "/cortexd.pth", "w").write(os.getcwd() + "\n")'
	touch $@

$(READY): packaging/requirements-test.lock $(RUN_TIME)
	$(PIP) -r packaging/requirements-test.lock
	touch $@

# The official SDKs want other versions of what cortexd uses, so that each has a folder of its own.
.sdk/%/.ready: packaging/sdk-%.lock $(RUN_TIME)
	rm -rf $(@D)
	$(PIP) --no-compile --target $(@D) -r $<
	touch $@

# JavaScript is tested where there is a Node that runs it; elsewhere those tests skip and say so.
.sdk/npm/.ready: packaging/npm/package-lock.json
	@if ! node -e 'process.exit(+(parseInt(process.versions.node) < 20))' || ! command -v npm >/dev/null; \
	then echo 'no Node.js 20 or later with npm: the JavaScript SDKs will not be tested'; else \
	  rm -rf $(@D) && mkdir -p $(@D) && cp packaging/npm/*.json $(@D) && \
	  npm ci --prefix $(@D) --ignore-scripts $(NPM) && touch $@; fi

# What the benchmark compares with has an environment of its own, as nothing of it is ours.
build/peers/%/.ready: packaging/peer-%.lock | $(PY)
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
	  --only-binary :all: -r $<
	touch $@

$(WHEELS): packaging/requirements.lock packaging/build_zipapp.py $(RUN_TIME)
	$(PY) packaging/build_zipapp.py --fetch-only
	touch $@
