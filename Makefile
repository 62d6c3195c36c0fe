# The daily commands. `make demo` and `make test` install what is missing (Debian packages, npm packages, Maven
# artefacts) and say plainly what they cannot install.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# PROFILE=release builds an optimised binary (twice the build time).
PROFILE ?= dev
TARGET := $(or $(CARGO_TARGET_DIR),target)
# BENCH_PROFILE=dev measures the profile of tests and demo, without an optimised build.
BENCH_PROFILE ?= release
BINARY := $(TARGET)/$(if $(filter release,$(PROFILE)),release,debug)/andon
WEB := dashboard-api/web
WEB_SOURCES := $(shell find $(WEB) -path $(WEB)/node_modules -prune -o -path $(WEB)/dist -prune -o -type f -print 2>/dev/null)

.PHONY: help demo test soak bench fuzz flink lint fmt build web clean

help: ## Lists the commands.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Builds and starts the demo, and prints the address of a live page. DEMO_FLAGS="--speed 10" and so on.
	@deploy/dev/setup.sh build
	@$(MAKE) --no-print-directory build
	@$(BINARY) demo $(DEMO_FLAGS)

build: web ## Builds the page and the binary.
	@cargo build --locked --profile $(PROFILE) --bin andon

web: $(WEB)/node_modules/.built ## Builds the page.

# A stamp, and not the page itself, since cargo puts a placeholder where there is no page.
$(WEB)/node_modules/.built: $(WEB_SOURCES)
	@npm --prefix $(WEB) ci --no-progress
	@npm --prefix $(WEB) run build
	@touch $@

test: ## Runs every test there is; the last line says how many passed, failed and were skipped.
	@deploy/dev/setup.sh test
	@TARGET=$(TARGET) deploy/dev/test.sh

soak: ## Kills engine and broker 200 times under load, then random queries under changes and kills, and clients that come and go at live servers, watching memory, for MINUTES=60.
	@deploy/dev/setup.sh test
	@deploy/dev/soak.sh $(or $(MINUTES),60)

bench: ## Measures throughput and latency on the local log and on Kafka, and the live server beside others; see docs/benchmarks.md.
	@deploy/dev/setup.sh test
	@BENCH_PROFILE=$(BENCH_PROFILE) deploy/dev/bench.sh $(BENCH_FLAGS)

fuzz: ## Fuzzes the decoders that face the network, SECONDS=60 each.
	@deploy/dev/fuzz.sh $(or $(SECONDS),60)

flink: ## Runs NEXMark and six figures on Andon and on Apache Flink, and compares; see docs/benchmarks.md. FLINK_FLAGS="events=1000000".
	@deploy/dev/setup.sh flink
	@cargo bench --locked --profile $(BENCH_PROFILE) -p andon --bench nexmark -- $(FLINK_FLAGS)

lint: ## Formatting and lints of everything. Continuous integration runs the tests only.
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@npm --prefix $(WEB) ci --no-progress && npm --prefix $(WEB) run check

fmt: ## Formats the Rust code.
	@cargo fmt --all

clean: ## Removes everything that was built.
	@rm -rf $(TARGET) $(WEB)/dist $(WEB)/node_modules tests/browser/node_modules dashboard-api/tests/client/node_modules
