# Every target that needs root says so by itself; see `scripts/setup --help`.

export CLOISTER_STATE_DIR ?= $(CURDIR)/.cloister
export CLOISTER_RUN_DIR ?= $(CURDIR)/.cloister/run

# What `make check` runs beside format and lints: the tests that need neither root nor a sandbox.
FAST_TESTS ?= --bin cloister -- $(addprefix --skip adapters::,runsc::tests cgroup::tests process::tests volumes::tests)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-host check bench clean-state

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install runsc, the runtimes and ComfyUI (root; what is there is kept)
	scripts/setup

run: setup ## build Cloister, start it here and show what it does (root)
	cargo build --release --locked
	exec scripts/demo

test: ## run all tests (root)
	scripts/setup --with-crun --with-oracle --with-registry
	@if cargo nextest --version >/dev/null 2>&1; then set -x; exec cargo nextest run --locked --no-fail-fast; \
	else set -x; exec cargo test --locked --no-fail-fast; fi

test-host: ## the daemon under real systemd and cgroup v2, in a virtual machine (root, ten minutes; HOST_BINARY=… takes that program)
	scripts/setup --no-comfyui
	$(if $(HOST_BINARY),,cargo build --release --locked)
	tests/host/all $(HOST_BINARY)

check: ## format, lints and the fast tests (no root, a minute or two)
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo test --locked $(FAST_TESTS)

bench: ## measure (root)
	scripts/setup --with-oracle
	cargo build --release --locked --bin cloister --example comfy-double
	cargo bench --locked --bench cloister

clean-state: ## remove .cloister: runtimes, ComfyUI, environments (stop the daemon first)
	@if grep -F ' $(CURDIR)/.cloister/' /proc/self/mounts; then \
	  echo 'make: these are still mounted: stop the daemon first' >&2; exit 1; fi
	rm -rf --one-file-system '$(CURDIR)/.cloister'
