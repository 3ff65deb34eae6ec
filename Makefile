# What a person or CI asks for; each target prints what it does. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_BIN := $(or $(JARVIS_CACHE),$(HOME)/.cache/jarvis)/bench/bin
NATS := v2.15.2
CONFIG ?= values/kind.yaml
SEEDS ?= 0-199
NODES ?= 0
STEPS ?= 300
SOURCES := benchmarks crdt_service harness loadtests tests deployment_cli.py

.DEFAULT_GOAL := help
.PHONY: help up test sim e2e down airgap tools generate lint type load bench peers requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(READY) ## a fresh machine to a working Jarvis: engine, cluster, image, deploy, write here and read there
	@$(BIN)/python -m harness.cluster up
	@$(BIN)/python deployment_cli.py deploy $(CONFIG)

test: $(READY) tools ## everything that needs no cluster
	@$(BIN)/pytest -m "not e2e"

sim: $(READY) ## the store in a simulated world with faults; SEEDS=0-199, NODES=0 draws 3 to 7, STEPS=300
	@$(BIN)/python -m tests.sim --seeds $(SEEDS) --nodes $(NODES) --steps $(STEPS)

e2e: $(READY) ## the suite on the kind cluster, which it brings up if need be
	@$(BIN)/python -m harness.cluster up
	@$(BIN)/pytest -m e2e tests/e2e

down: $(READY) ## delete the cluster, and stop the engine if it is ours
	@$(BIN)/python -m harness.cluster down

airgap: $(READY) ## build every image from package registries, cached by content
	@$(BIN)/python -m harness.cluster airgap

tools: $(READY) ## build kind and helm if they are not on PATH
	@$(BIN)/python -m harness.cluster tools

generate: $(READY) ## schema, default values and configuration reference from charts/jarvis/values.schema.yaml
	@$(BIN)/python -m harness.spec.generate

lint: $(READY) ## style, import contracts and generated files
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/lint-imports
	@$(BIN)/python -m harness.spec.generate --check

type: $(READY) ## mypy, strict
	@$(BIN)/mypy

load: $(READY) ## a bounded load on three nodes and a backend on loopback
	@$(BIN)/python -m loadtests.run

bench: $(BENCH_READY) peers ## side by side with Redis, NATS and etcd on loopback; BENCH='--only jarvis,redis' for some
	@$(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

peers: ## build NATS and etcd for `make bench`, once; what cannot be built is reported as missing
	@test -x $(BENCH_BIN)/nats-server || GOBIN=$(BENCH_BIN) go install github.com/nats-io/nats-server/v2@$(NATS) \
	  || echo "nats-server could not be built"
	@test -x $(BENCH_BIN)/etcd || (cd benchmarks/peers/etcd && go build -o $(BENCH_BIN)/etcd .) \
	  || echo "etcd could not be built"

requirements: $(READY) ## pin the newest versions of requirements/*.in with hashes
	@cd requirements && for name in service dev bench; do \
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
