# Everything a developer or CI runs. `make` alone lists it; each target brings what it needs.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The first Python that fits; name another with `make PYTHON=/path/to/python3.11 …`.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
PROMETHEUS := .cache/prometheus
PROMTOOL := $(PROMETHEUS)/usr/bin/promtool
ALERTMANAGER := .cache/alertmanager
AMTOOL := $(ALERTMANAGER)/usr/bin/amtool
ARGS ?=
# Tests run in so many processes, each with a broker of its own; 0: in one, as a debugger wants it.
JOBS ?= 2
DATA ?= ../shared/data

define loud
printf '\n\033[1;33m!!! %s\033[0m\n    %s\n\n' $(1) $(2) >&2
endef

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([.a-z-]+):[^#]*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
		printf '  make %-15s %s\n' "$$name" "$$what"; done

.PHONY: demo
demo: .venv ## see it work: embedded broker, sample journeys, findings (no Java, no Docker)
	$(BIN)/trustwatch demo $(ARGS)

.PHONY: stack
stack: .venv broker promtool amtool ## the installation on loopback without Docker, all but Grafana, with a replay (ARGS='--for 300')
	@exec $(BIN)/python -m deploy.stack $(ARGS)

.PHONY: test
test: .venv broker promtool amtool chromium clients ## all tests, on a real Kafka where Java and Maven are there (ARGS='-k name')
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

.PHONY: test-faults
test-faults: .venv broker ## the line under nine faults on a real Kafka, 10 minutes at most (FAULT_SEED=n, ARGS='--only ag')
	$(BIN)/python -m tests.faults $(ARGS)

.PHONY: lint
lint: .venv ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: gen
gen: .venv ## rewrite what is generated from code
	$(BIN)/python -m streams.docs
	$(BIN)/python -m dashboards.build
	$(BIN)/python -m dashboards.alerts
	$(BIN)/python -m deploy.k8s
	$(BIN)/python -m streams.collect

.PHONY: bench
bench: .venv broker .cache/bench/peers/.stamp ## events per second and delays beside peers; writes report/ (some 30 minutes)
	$(BIN)/python -m tests.bench.formats
	$(BIN)/python -m tests.bench.line $(ARGS)

.PHONY: fuzz
fuzz: .venv ## mutated payloads through every format, 5 minutes each (ARGS='--minutes 1 --format posthog')
	$(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: bench-scale
bench-scale: .venv broker ## cost of an event with more segments, open sessions and workers
	$(BIN)/python -m tests.bench.scale $(ARGS)

# Apart from .venv: quixstreams refuses the versions of pydantic and confluent-kafka that we have.
.cache/bench/peers/.stamp: tests/bench/peers.txt | .venv
	$(BIN)/python -m venv .cache/bench/peers
	.cache/bench/peers/bin/python -m pip install --quiet --disable-pip-version-check -r tests/bench/peers.txt
	@touch $@

.PHONY: bench-detection
bench-detection: .venv ## how well changes are found, beside River's detectors; writes report/ (ARGS=--quick, DATA=folder)
	@code=0; $(BIN)/python -m tests.bench.detection $(ARGS) || code=1; \
	if [ -d '$(DATA)' ]; then $(BIN)/python -m tests.bench.real --data '$(DATA)' || code=1; \
	else echo "no real data at $(DATA): simulated streams only"; fi; exit $$code

.PHONY: clean
clean: ## back to a fresh checkout: build products, caches, fetched jars, .venv
	rm -rf .venv .cache build dist report *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: .venv
.venv: .venv/.stamp ## the Python environment, as constraints.txt pins it

.venv/.stamp: pyproject.toml constraints.txt
	@if [ -z '$(PYTHON)' ]; then echo "Python 3.11 or 3.12 is needed, here is: $$(python3 --version 2>&1)." \
		"Fix: install one (Debian: apt-get install python3 python3-venv) or make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments. Fix (Debian): apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: broker
broker: .venv ## the jars of Apache Kafka for the tests, by Maven
	@if reason=$$($(BIN)/python -c 'from deploy.kafka import available; print(available() or "")') && [ -z "$$reason" ]; then \
		$(BIN)/python -m deploy.kafka fetch || \
		$(call loud,'NO REAL KAFKA: tests use the embedded broker and leave some out.','Maven could not fetch the jars: see above.'); \
	else \
		$(call loud,'NO REAL KAFKA: tests use the embedded broker and leave some out.',"$$reason"); \
	fi

.PHONY: promtool
promtool: ## Prometheus and promtool from the Debian package, unpacked, nothing installed or started
	@if [ -x $(PROMTOOL) ] || command -v promtool >/dev/null; then \
		:; \
	elif ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then \
		$(call loud,'NO PROMTOOL: tests of alert rules are left out.','This machine has no apt-get. Fix: put promtool on the PATH.'); \
	else \
		$(MAKE) --no-print-directory $(PROMTOOL) || \
		$(call loud,'NO PROMTOOL: tests of alert rules are left out.','The Debian package could not be downloaded: see above.'); \
	fi

CHROMIUM := .cache/chromium
CHROMIUM_BIN := $(CHROMIUM)/usr/lib/chromium/chromium-headless-shell

.PHONY: chromium
chromium: ## Debian's Chromium for the tests of the status page, unpacked with what it needs, nothing installed
	@if [ -x $(CHROMIUM_BIN) ] || command -v chromium chromium-headless-shell google-chrome >/dev/null; then \
		:; \
	elif ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then \
		$(call loud,'NO CHROMIUM: tests of the status page in a browser are left out.','This machine has no apt-get. Fix: put chromium on the PATH.'); \
	else \
		$(MAKE) --no-print-directory $(CHROMIUM_BIN) || \
		$(call loud,'NO CHROMIUM: tests of the status page in a browser are left out.','The Debian packages could not be downloaded: see above.'); \
	fi

$(CHROMIUM_BIN):
	@rm -rf $(CHROMIUM) && mkdir -p $(CHROMIUM)/debs/partial && cd $(CHROMIUM) && \
		fetch() { apt-get -q install -y --no-install-recommends --download-only -o Debug::NoLocking=1 \
			-o Dir::Cache::archives="$$PWD/debs" chromium-headless-shell fontconfig-config fonts-dejavu-core; } && \
		{ fetch || { apt-get -q update && fetch; }; } && \
		for package in debs/*.deb; do dpkg -x "$$package" .; done && rm -rf debs
	@ls $@

.PHONY: clients
clients: .cache/clients/.stamp ## the client libraries that tests send to the collector with, from PyPI and npm
	@command -v npm >/dev/null || $(call loud,'NO NPM: analytics.js in a browser is left out.','Fix (Debian): apt-get install npm && rm -r .cache/clients')

# Apart from .venv: Segment's library wants an older python-dateutil than we have.
.cache/clients/.stamp: tests/clients/requirements.txt tests/clients/npm.txt | .venv
	$(BIN)/python -m venv .cache/clients
	.cache/clients/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	@! command -v npm >/dev/null || { cd .cache/clients && npm pack --silent --ignore-scripts "$$(cat ../../tests/clients/npm.txt)" && \
		tar -xzf segment-analytics-next-*.tgz && rm -f segment-analytics-next-*.tgz; }
	@touch $@

$(PROMTOOL):
	@mkdir -p $(PROMETHEUS) && cd $(PROMETHEUS) && rm -f *.deb && \
		{ apt-get -q download prometheus || { apt-get -q update && apt-get -q download prometheus; }; } && \
		dpkg -x prometheus_*.deb . && rm -f *.deb
	@ls $@

.PHONY: amtool
amtool: ## Alertmanager and amtool from the Debian package, unpacked, nothing installed or started
	@if [ -x $(AMTOOL) ] || command -v amtool >/dev/null; then \
		:; \
	elif ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then \
		$(call loud,'NO AMTOOL: tests of routing are left out.','This machine has no apt-get. Fix: put amtool on the PATH.'); \
	else \
		$(MAKE) --no-print-directory $(AMTOOL) || \
		$(call loud,'NO AMTOOL: tests of routing are left out.','The Debian package could not be downloaded: see above.'); \
	fi

$(AMTOOL):
	@mkdir -p $(ALERTMANAGER) && cd $(ALERTMANAGER) && rm -f *.deb && \
		{ apt-get -q download prometheus-alertmanager || \
		{ apt-get -q update && apt-get -q download prometheus-alertmanager; }; } && \
		dpkg -x prometheus-alertmanager_*.deb . && rm -f *.deb
	@ls $@
