# What a person or CI asks for; each target prints what it does. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_BIN := $(or $(JARVIS_CACHE),$(HOME)/.cache/jarvis)/bench/bin
NATS := v2.15.2
DEV ?=
CONFIG ?= values/kind.yaml
SEEDS ?= 0-199
NODES ?= 0
STEPS ?= 300
RUNS ?= 20000
REPLAY ?=
SOURCES := benchmarks charts crdt_service examples harness loadtests tests deployment_cli.py

.DEFAULT_GOAL := help
.PHONY: help up test venv dev sim growth fuzz e2e down airgap tools generate lint type load capacity bench hotspots measure figures bench-engine peers requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(READY) ## a fresh machine to a working Jarvis: engine, cluster, image, deploy, write here and read there
	@$(BIN)/python -m harness.cluster up
	@$(BIN)/python deployment_cli.py deploy $(CONFIG)

test: $(READY) tools ## everything that needs no cluster
	@$(BIN)/pytest -m "not e2e" --numprocesses auto --dist worksteal --ignore tests/loopback
	@$(BIN)/pytest -m "not e2e" tests/loopback

venv: $(READY) ## the virtual environment that all else runs in

dev: $(READY) ## a cluster in one process on loopback, started again when the code changes; DEV='--nodes 3 --with-keys'
	@$(BIN)/watchfiles --filter python '$(BIN)/python -m crdt_service dev $(DEV)' crdt_service

sim: $(READY) ## the store in a simulated world with faults; SEEDS=0-199, NODES=0 draws 3 to 7, STEPS=300
	@$(BIN)/python -m tests.sim --seeds $(SEEDS) --nodes $(NODES) --steps $(STEPS)

growth: $(READY) ## what membership costs and how soon it knows, from 3 to 1000 nodes in virtual time
	@$(BIN)/python -m tests.sim.growth

fuzz: $(READY) ## every decoder of peers' and files' bytes with changed inputs; RUNS=20000, REPLAY=file runs one
	@$(BIN)/python -m tests.fuzz --runs $(RUNS) $(if $(REPLAY),--replay $(REPLAY))

e2e: $(READY) ## the suite on the kind cluster, which it brings up if need be
	@$(BIN)/python -m harness.cluster up
	@$(BIN)/pytest -m e2e tests/e2e

down: $(READY) ## delete the cluster, and stop the engine if it is ours
	@$(BIN)/python -m harness.cluster down

airgap: $(READY) ## build every image from package registries, cached by content
	@$(BIN)/python -m harness.cluster airgap

tools: $(READY) ## build the programs that tests run and PATH lacks, fetch the schemas of custom resources, install checkov
	@$(BIN)/python -m harness.cluster tools

generate: $(READY) ## what follows from charts/jarvis/values.schema.yaml, the catalogue of metrics and harness/dashboard
	@$(BIN)/python -m harness.spec.generate
	@$(BIN)/python -m harness.dashboard.generate
	@$(BIN)/python -m crdt_service.metrics.page

lint: $(READY) ## style, import contracts and generated files
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/lint-imports
	@$(BIN)/python -m harness.spec.generate --check
	@$(BIN)/python -m harness.dashboard.generate --check
	@$(BIN)/python -m crdt_service.metrics.page --check

type: $(READY) ## mypy, strict
	@$(BIN)/mypy

load: $(READY) ## a bounded load on three nodes and a backend on loopback, without TLS and with it
	@$(BIN)/python -m loadtests.run

capacity: $(READY) ## what one backend takes over HTTPS with API keys: batches, half load, overload, 9,000 feeds
	@$(BIN)/python -m loadtests.capacity
	@$(BIN)/python -m loadtests.feeds --writes 20 --pause 1

bench: $(BENCH_READY) peers ## side by side with Redis, NATS and etcd on loopback; BENCH='--only jarvis,redis' for some
	@$(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

hotspots: $(BENCH_READY) ## where the CPU time of one of three nodes goes under writes
	@$(BENCH_VENV)/bin/python -m benchmarks.hotspots

measure: $(READY) ## bytes to heal, growth to 1000 nodes, cost of an operation, memory and restart; MEASURE='--only memory'
	@$(BIN)/python -m tests.measure $(MEASURE)

figures: $(READY) $(BENCH_READY) peers ## the tables and the picture of docs/benchmarks.md, by all of the above
	@$(BENCH_VENV)/bin/python -m benchmarks --page docs/benchmarks.md --plot docs/benchmarks.png $(BENCH)
	@$(BENCH_VENV)/bin/python -m benchmarks.hotspots --page docs/benchmarks.md
	@$(BIN)/python -m tests.measure --page docs/benchmarks.md $(MEASURE)

bench-engine: $(BENCH_READY) ## the journal beside SQLite, LMDB and RocksDB: durable writes, recovery, size
	@$(BENCH_VENV)/bin/python -m benchmarks.engine $(BENCH)

peers: ## build NATS and etcd for `make bench`, once; what cannot be built is reported as missing
	@test -x $(BENCH_BIN)/nats-server || GOBIN=$(BENCH_BIN) go install github.com/nats-io/nats-server/v2@$(NATS) \
	  || echo "nats-server could not be built"
	@test -x $(BENCH_BIN)/etcd || (cd benchmarks/peers/etcd && go build -o $(BENCH_BIN)/etcd .) \
	  || echo "etcd could not be built"

requirements: $(READY) ## pin the newest versions of requirements/*.in with hashes
	@cd requirements && for name in service dev bench judge; do \
	  ../$(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $$name.txt $$name.in; done

clean: ## forget the virtual environment; the cache of built images stays
	rm -rf $(VENV) $(BENCH_VENV)

$(READY): requirements/dev.txt
	@echo "making the virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@touch $@

$(BENCH_READY): requirements/bench.txt
	@echo "making the virtual environment in $(BENCH_VENV)"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/bench.txt
	@touch $@
