# Everything that one does with Liaison from a shell. `make` alone lists it.
# CLUSTER, IMAGES, BASE_IMAGE and LIAISON_CACHE are explained in tests/cluster/lib/target.bash and images/build.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The tools that lint uses and a Rust toolchain does not bring.
cache := $(or $(LIAISON_CACHE),$(HOME)/.cache/liaison)
tools := $(cache)/tools
cargo_deny_version := 0.20.2

# What cargo compiled outlives the checkout, like everything that takes minutes to make.
export CARGO_TARGET_DIR ?= $(cache)/target

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | sed 's|\$$\$$|$$|' | column -t -s '|'

.PHONY: up
up: ## install Liaison on a cluster, onboard the example partners, and show an officer's search
	@tests/demo/up

.PHONY: down
down: ## remove the cluster and every trace of it
	@tests/demo/partner forget
	@tests/cluster/down

.PHONY: env
env: ## print the exports that a shell needs: eval "$$(make env)"
	@tests/cluster/env

.PHONY: cluster
cluster: ## start (or adopt) the cluster alone
	@tests/cluster/up

.PHONY: build
build: ## compile the workspace
	cargo build --locked --workspace

.PHONY: images
images: cluster ## build the container images and bring them to the cluster
	@images/build

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: lint
lint: lint-rust lint-scripts lint-licences ## all lints

.PHONY: lint-rust
lint-rust: ## formatting, and clippy with warnings as errors
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: lint-scripts
lint-scripts: ## shellcheck of all scripts; it is installed where it is lacking
	@state=$${XDG_STATE_HOME:-$$HOME/.local/state}/liaison-lint bash -ec 'source tests/cluster/lib/common.bash; need_packages shellcheck'
	git grep -lIE '^#!(/usr/bin/env (ba)?sh|/bin/(ba)?sh)$$' | xargs shellcheck --external-sources
	@# What is sourced gets and gives variables that it does not show.
	git ls-files '*.bash' | xargs shellcheck --exclude=SC2034,SC2154

.PHONY: lint-licences
lint-licences: $(tools)/cargo-deny-$(cargo_deny_version)/bin/cargo-deny ## dependencies: licences, sources, bans
	$< --locked check bans licenses sources

$(tools)/cargo-deny-$(cargo_deny_version)/bin/cargo-deny:
	@echo "building cargo-deny, once: a few minutes"
	time cargo install --quiet --locked --root $(tools)/cargo-deny-$(cargo_deny_version) cargo-deny@$(cargo_deny_version)

.PHONY: services
services: ## start (or adopt) what test-fast needs: an API server and a PostgreSQL
	@tests/cluster/services up

.PHONY: services-down
services-down: ## stop them and remove their data
	@tests/cluster/services down

.PHONY: test-fast
test-fast: services ## the tests that need no node
	eval "$$(tests/cluster/services env)" && cargo test --locked --workspace --exclude liaison-e2e

.PHONY: soak
soak: services ## the property test of sync for STEPS steps (a million) from SEED, LANES worlds at a time; stopped, it goes on; docs/soak.md is its account
	eval "$$(tests/cluster/services env)" && LIAISON_STEPS=$(or $(STEPS),1000000) LIAISON_SEED=$(or $(SEED),100000) LIAISON_LANES=$(or $(LANES),8) \
		LIAISON_CODE="$$(git rev-parse HEAD:services/sync HEAD:services/records HEAD:services/oms | cut -c1-12 | paste -sd' ')" \
		LIAISON_SOAK=$(CURDIR)/target/soak cargo test --locked --workspace --test soak -- --nocapture
	cp target/soak/soak.md docs/soak.md

.PHONY: test-chart
test-chart: services ## the chart: what it refuses, what it renders, what an API server says to it
	eval "$$(tests/cluster/services env)" && tests/chart/run

.PHONY: test-e2e
test-e2e: ## whole-system tests on the cluster that make up left: scope over the tunnel, crossings, bad input, outages, kills
	eval "$$(tests/cluster/env)" && cargo test --locked --workspace --test "t[0-9]_*" -- --test-threads=1 --nocapture

.PHONY: test-kernel
test-kernel: ## the gateway's tunnel with the WireGuard of Debian's kernel, emulated: a quarter of an hour; TESTS=whatever for some of its tests
	mkdir -p target
	cargo test --locked --workspace --exclude liaison-e2e --no-run --test tunnel --message-format=json | \
		jq -r 'select(.target.kind == ["test"] and .executable).executable' >target/kernel-test
	cd services/gateway && ../../tests/kernel/run env WG_BACKEND=kernel LIAISON_PATIENCE=4 RUST_LOG=warn \
		"$$(cat ../../target/kernel-test)" --test-threads=1 $(TESTS)

.PHONY: test
test: ## everything, with the time of each part
	@.ci/run parts

# What is measured is compiled as it is for production.
build_bench := cargo build --release --locked --workspace --bin liaison-bench --bin liaison-oms

.PHONY: bench-generate
bench-generate: services ## files a second of the synthetic OMS, beside pg_dump | psql
	$(build_bench)
	eval "$$(tests/cluster/services env)" && $(CARGO_TARGET_DIR)/release/liaison-bench generate

.PHONY: bench-fanout
bench-fanout: ## partners in number, beside PostgreSQL's own replication; N=13,50 REPEATS=1 MEASURES=A,C for less
	@tests/bench/ready
	$(build_bench)
	$(CARGO_TARGET_DIR)/release/liaison-bench fanout

.PHONY: bench-takeover
bench-takeover: ## the pod of the gateway that serves is deleted by force KILLS times (a hundred), on the cluster that make up left
	$(build_bench)
	mkdir -p target
	eval "$$(tests/cluster/env)" && KILLS=$(or $(KILLS),100) cargo test --locked --workspace --test t5_outages -- t52 --nocapture | tee target/takeover
	sed -n 's/^served again \(.*\) s after.*/\1/p' target/takeover | \
		$(CARGO_TARGET_DIR)/release/liaison-bench times 'C the pod that serves is deleted by force, until a request is answered'
	$(CARGO_TARGET_DIR)/release/liaison-bench render

# The gateway, its WireGuard and its TUN are compiled as for production; their dependencies are as they always are.
optimised_gateway := $(foreach crate,liaison-gateway gotatun tun-rs,--config 'profile.dev.package.$(crate).opt-level=3' \
  --config 'profile.dev.package.$(crate).debug-assertions=false')

.PHONY: bench-gateway
bench-gateway: services ## revocation, rotation, kills, roaming and throughput of the gateway; MEASURES=B,C KILLS=10 for less
	cargo build --locked --workspace --bin liaison-bench --bin liaison-gateway --bench gateway $(optimised_gateway)
	eval "$$(tests/cluster/services env)" && RUST_LOG=warn,gotatun=off "$$(cargo build --quiet --locked --workspace --bin liaison-bench --bin liaison-gateway --bench gateway \
		$(optimised_gateway) --message-format=json | jq -r 'select(.target.kind == ["bench"]) | .executable // empty')"
	$(CARGO_TARGET_DIR)/debug/liaison-bench render

.PHONY: bench-operator
bench-operator: services ## the operator with 1,000 and 10,000 connections, and claims from four processes; CONNECTIONS=100 CLAIMS=0 for less
	$(build_bench) --bin liaison-operator
	eval "$$(tests/cluster/services env)" && KUBECONFIG="$$TEST_KUBECONFIG" $(CARGO_TARGET_DIR)/release/liaison-bench connections
	$(CARGO_TARGET_DIR)/release/liaison-bench render
