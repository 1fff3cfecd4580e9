# SPDX-License-Identifier: LGPL-2.1-or-later
# A thin front over Meson: `make` builds, `make run` shows it at work, `make test` tests everything.
BUILD ?= build
MESON_OPTIONS ?=
SETUP = [ -f $(BUILD)/build.ninja ] || meson setup $(BUILD) -Dwerror=true $(MESON_OPTIONS)

all: ## build into build/, with the drop-in names in build/compat/
	@tools/install-packages build
	@$(SETUP)
	ninja -C $(BUILD)

run: all ## a demo: an image, a daemon that exports it, and what to try
	@tools/demo $(BUILD)

test: ## all tests: unit, tidy, end to end
	@tools/install-packages build test
	@$(SETUP)
	ninja -C $(BUILD)
	@tools/run-tests $(BUILD)

bench: ## the benchmarks, side by side with other servers
	@tools/install-packages build bench
	@[ -f build-bench/build.ninja ] || meson setup build-bench --buildtype=release
	ninja -C build-bench
	tests/bench/bench build-bench

soak: ## random commands and clients for MINUTES (10) against a build with sanitizers; SEED=n repeats
	@tools/install-packages build test
	@[ -f build-asan/build.ninja ] || meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false
	ninja -C build-asan src/bin/ashlar-storaged
	/usr/bin/python3 tests/soak/soak build-asan --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

fuzz: ## each fuzz target for FUZZ_SECONDS (60), with clang
	@tools/install-packages build fuzz
	@tools/run-fuzzers

check-features: ## build and test with each feature switched off, one by one; FEATURES="zlib fuse" tries only these
	@tools/install-packages build test
	tools/check-features $(FEATURES)

check-format: ## complain about lines that clang-format would write otherwise
	@tools/install-packages format
	@git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror

format: ## write all C as clang-format would
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: all ## install below PREFIX as configured with MESON_OPTIONS
	meson install -C $(BUILD)

clean: ## remove what was built
	rm -rf $(BUILD) build-*

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' Makefile

.PHONY: all run test bench soak fuzz check-features check-format format install clean help
