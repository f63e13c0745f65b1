# `make up` brings a cluster up from a clean clone; `make down` removes it; `make test` tests everything.
# `make help` lists all.

SHELL := /bin/sh
PATH := $(CURDIR)/target/tools/bin:$(HOME)/.cargo/bin:$(PATH)
export PATH

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
SLUICE := $(TARGET)/release/sluice
# The test programs start namespaces and containers: they run as root, the compiler does not.
RUNNER := $(if $(SUDO),CARGO_TARGET_$(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER="sudo -E")

.PHONY: help setup setup-tests build static up down status test format lint rules stale unit e2e bench

help:
	@echo "make up      install what is missing, build, bring up a cluster, deploy and exercise the example"
	@echo "make down    remove the cluster and every trace of it"
	@echo "make status  show its processes, nodes and pods"
	@echo "make test    all checks and tests, as root (installs what they need)"
	@echo "make bench   how fast the dataplane is"
	@echo "single steps of make test: format lint rules stale unit e2e"
	@echo "ARGS='--name NAME --api-port PORT --no-demo' is handed to sluice up, down and status"

setup:
	@hack/setup

setup-tests:
	@hack/setup --tests

# A directory of its own: these binaries are linked statically.
static:
	@cd examples/echo && cargo build --quiet --locked --release --target-dir "$(TARGET)/static"

build: static
	cargo build --locked --release -p sluice -p sluice-ipam --bins

up: setup build
	@$(SUDO) $(SLUICE) up $(ARGS)

down:
	@$(SUDO) $(SLUICE) down $(ARGS)

status:
	@$(SUDO) $(SLUICE) status $(ARGS)

test: setup-tests format lint rules stale unit e2e

format:
	cargo fmt --all --check
	cd examples/echo && cargo fmt --check

lint:
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd examples/echo && cargo clippy --quiet --locked --release --all-targets --target-dir "$(TARGET)/static" -- -D warnings

# Who may depend on whom, and who may use what.
rules:
	cargo test --locked --quiet -p sluice-tests --test dependency_rules

# The committed eBPF objects are those that the source gives.
stale:
	ebpf/update-prebuilt --check

unit: static
	cd examples/echo && cargo test --quiet --locked --release --target-dir "$(TARGET)/static"
	EBPF_BUILD=source $(RUNNER) cargo test --locked --workspace --exclude sluice-tests

# The whole cluster; the programs are those of the build that was just tested.
e2e: static
	EBPF_BUILD=source cargo build --locked --workspace --bins
	$(RUNNER) cargo test --locked -p sluice-tests --tests

bench:
	@hack/bench
