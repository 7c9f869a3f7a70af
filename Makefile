# `make drill` runs the main job, `make test` passes the tests. Each installs what it needs into .venv first.
PYTHON ?= python3
# Tests wait more than they work, so more processes run them than there are cores. 0: this one alone does.
PROCESSES ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: drill test test-all lint bench shame soak clean
.DEFAULT_GOAL := test

drill: $(READY)
	$(BIN)/penstock drill outage --html drill-report.html

test: $(READY) lint
	@sh scripts/redis.sh
	@sh scripts/pgbouncer.sh
	@sh scripts/mariadb.sh
	@sh scripts/prometheus.sh
	@sh scripts/chromium.sh
	$(BIN)/python -m pytest -n $(PROCESSES) --reruns 1

# Every interpreter of 3.11 to 3.13 that this machine has, each in an environment of its own.
test-all: $(READY)
	@PYTHON=$(PYTHON) PROCESSES=$(PROCESSES) sh scripts/test-all.sh

lint: $(READY)
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy

bench: $(VENV)/.peers
	@sh scripts/wrk.sh
	$(BIN)/python -m bench

# The scoreboard of every pool's failures, as a table for the README.
shame: $(VENV)/.peers
	$(BIN)/python -m bench.shame

soak: $(READY)
	PENSTOCK_SCHEDULES=1000000 $(BIN)/python -m pytest tests/test_schedules.py -s

$(READY): pyproject.toml scripts/venv.sh
	@PYTHON=$(PYTHON) sh scripts/venv.sh $(VENV)
	@touch $@

$(VENV)/.peers: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group peers
	@touch $@

clean:
	rm -rf $(VENV) .venv-3.* drill-report.html
