# Everything starts here: `make help`. Needs Python 3.11 or later (with venv) and make, nothing else.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
# Installs exactly what the locks name; the build itself uses the locked setuptools, so nothing unlocked is fetched.
PIP := $(PY) -m pip --quiet --quiet --disable-pip-version-check --no-input
# Flags of both locks. --universal: one lock for every platform and Python >= 3.11. No index is named in them.
COMPILE := $(VENV)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help install dev demo up test check interop bench bench-limits bench-routing bench-rules bench-quota bench-sendpath bench-smpp bench-state bench-trials fuzz docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/runtime.stamp ## make .venv with the `dispatcher` command in it
	@echo "installed: $(VENV)/bin/dispatcher"

dev: $(VENV)/dev.stamp ## the same with the tools that test and check need

demo: $(VENV)/runtime.stamp ## the whole system against simulated providers (KEEP=1: until Ctrl-C; SCENARIO=blackout)
	@$(VENV)/bin/dispatcher demo $(if $(KEEP),--keep) $(if $(SCENARIO),--scenario $(SCENARIO))

up: $(VENV)/runtime.stamp ## run it in the foreground
	@$(VENV)/bin/dispatcher up

test: $(VENV)/dev.stamp ## run all tests, in lanes side by side (T=tests/config: some)
	@echo "== tests"
	@$(PY) -m $(if $(T),pytest $(T),tests.lanes)

check: $(VENV)/dev.stamp ## lint, types, import rules, locks
	@echo "== ruff" && $(VENV)/bin/ruff check .
	@echo "== mypy" && $(VENV)/bin/mypy
	@echo "== imports" && $(VENV)/bin/lint-imports
	@echo "== locks" && $(MAKE) check-locks

interop: $(VENV)/dev.stamp ## talk to it with clients of other makes
	@echo "== interop"
	@$(PY) -m pytest tests/interop

bench: $(VENV)/dev.stamp ## measure end to end
	@$(PY) -m bench

bench-limits: $(VENV)/dev.stamp ## compare ways to limit the requests in the air, offline
	@$(PY) -m bench.limits

bench-routing: $(VENV)/dev.stamp ## compare ways to choose a provider, offline
	@$(PY) -m bench.routing

bench-rules: $(VENV)/dev.stamp ## measure one decision, against the same rules in a Redis script
	@$(PY) -m bench.rules

bench-state: $(VENV)/dev.stamp ## measure a million users: memory, snapshots, kill -9
	@$(PY) -m bench.state

bench-trials: $(VENV)/dev.stamp ## the whole system under brownout, blackout, backlog, flood and overload (8 minutes)
	@$(PY) -m bench.trials

bench-quota: $(VENV)/dev.stamp ## a rate quota over three senders, one of them killed
	@$(PY) -m bench.quota

bench-sendpath: $(VENV)/dev.stamp ## measure the sender with one message a request, against a bare aiohttp client
	@$(PY) -m bench.sendpath

bench-smpp: $(VENV)/dev.stamp ## measure one SMPP session, against aiosmpplib
	@$(PY) -m bench.smpp

fuzz: $(VENV)/dev.stamp ## the property tests with many more examples
	@echo "== fuzz"
	@HYPOTHESIS_PROFILE=fuzz $(PY) -m pytest $(or $(T),tests $(patsubst %,--ignore=tests/%,endtoend faults interop))

docs: $(VENV)/dev.stamp ## write docs/rules.md anew from the rules
	@$(PY) -m tests.rules_page

lock: $(VENV)/dev.stamp ## write the locks anew from pyproject.toml (UPGRADE=1: newest versions)
	@echo "== locks"
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --extra build pyproject.toml -o requirements/runtime.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --extra build --extra dev -c requirements/runtime.txt pyproject.toml \
		-o requirements/dev.txt

# The locks as they are are preferred over newer versions, so only a change of pyproject.toml makes a difference.
.PHONY: check-locks
check-locks:
	@set -e; new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; cp requirements/*.txt "$$new"; \
	$(COMPILE) --extra build pyproject.toml -o "$$new/runtime.txt" >/dev/null; \
	$(COMPILE) --extra build --extra dev -c requirements/runtime.txt pyproject.toml -o "$$new/dev.txt" >/dev/null; \
	for lock in runtime dev; do \
		diff -u "requirements/$$lock.txt" "$$new/$$lock.txt" \
			|| { echo "requirements/$$lock.txt is not what pyproject.toml asks for: run \`make lock\`" >&2; exit 1; }; \
	done

clean: ## remove .venv, caches and data
	@rm -rf $(VENV) build dist *.egg-info data .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean"

# -- the environment

$(PY):
	@for python in python3 python3.13 python3.12 python3.11 python3.14; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "== $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv $(VENV) && exit 0; \
			rm -rf $(VENV); \
			echo "$$python cannot make a virtual environment: install its venv module (Debian: python3-venv)" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "no Python 3.11 or later among python3, python3.11 ... python3.14: install one and put it on PATH" >&2; \
	exit 1

$(VENV)/runtime.stamp: requirements/runtime.txt pyproject.toml | $(PY)
	@echo "== runtime packages (a minute or two the first time)"
	@$(PIP) install --require-hashes -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	@echo "== development packages"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
