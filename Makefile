# The front of the build: meson and ninja do the work. `make help` lists the targets.
#
# build/ is for development and the tests: it has the points at which tests stop or break a migration (test_hooks).
# build-release/ is what `make install` puts on the machine: optimized, with its assertions, without those points.
# What is missing on the machine is installed by scripts/setup (Debian and relatives; needs root for that); SETUP=no leaves the machine
# as it is. SECONDS=N is how long `make fuzz` runs.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD := build
RELEASE := build-release
JOBS ?= $(shell nproc)
SETUP ?= yes
SECONDS ?= 300
# Prints what the compiler says and nothing else.
ninja = ninja -C $(1) -j $(JOBS) --quiet | { grep -v '^ninja: no work to do' || :; }
# $(call configure,DIRECTORY,OPTIONS): one whose set-up was interrupted has no build.ninja and is made anew.
configure = test -e $(1)/build.ninja || { mkdir -p $(1); rm -rf $(1)/meson-private $(1)/meson-info; \
	meson setup $(1) $(2) >$(1).log 2>&1 || { cat $(1).log >&2; exit 1; }; mv $(1).log $(1)/setup.log; }
# $(call keep,DIRECTORY,NAME,VALUE): gives an option of one that was configured otherwise this value.
keep = meson introspect $(1) --buildoptions | python3 -c 'import json, sys; \
	sys.exit(not any(o["name"] == "$(2)" and str(o["value"]) == "$(3)" for o in json.load(sys.stdin)))' || \
	{ meson configure $(1) -D$(2)=$(3) && ninja -C $(1) build.ninja >/dev/null; }

.DEFAULT_GOAL := build
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: build release setup-build setup demo test test-long test-drivers test-services test-faults test-soak test-kernel lint fuzz model bench bench-bars bench-quick install clean help

help:
	@echo 'make            build phaul in build/, for development; scripts/setup installs what is missing to do so'
	@echo 'make release    build what is installed, in build-release/'
	@echo 'make install    install it into PREFIX=/usr/local, below DESTDIR='
	@echo 'make demo       two hosts in namespaces: Redis moves there and back under its clients (root)'
	@echo 'make test       all tests (root)'
	@echo 'make test-long  those that take long, too (root)'
	@echo 'make test-drivers  every fault and refusal with every engine'"'"'s containers (root)'
	@echo 'make test-services  services in containers move under their clients, MOVES=10, a table per engine (root)'
	@echo 'make test-faults  the fault matrix of the handover: about fifteen minutes (root)'
	@echo 'make test-soak  MOVES=300 back and forth, with a random fault in every third (root)'
	@echo 'make test-kernel  memory tests on the distribution'"'"'s own kernel, in a virtual machine (root)'
	@echo 'make lint       the static checks alone'
	@echo 'make model      verify the model of the handover with SPIN'
	@echo 'make fuzz       fuzz what a peer may send, SECONDS=300'
	@echo 'make bench      measure phaul beside its peers, into build/bench/results.json and docs/benchmarks.md: three hours (root)'
	@echo 'make bench-bars  the part of it that the bars need, judged: about forty minutes (root)'
	@echo 'make bench-quick  what the most important bars need, in less than five minutes (root)'
	@echo 'make clean      remove everything that was built'
	@echo 'SETUP=no        install nothing on this machine; JOBS=N compilers at a time'

# Quiet when nothing is missing; a machine without apt may have it all by other means, and then meson decides.
setup-build:
	@test "$(SETUP)" = no || scripts/setup --build --check >/dev/null 2>&1 || scripts/setup --build || command -v meson >/dev/null

setup:
	@test "$(SETUP)" = no || scripts/setup --check >/dev/null 2>&1 || scripts/setup

build: setup-build
	@$(call configure,$(BUILD),-Dtest_hooks=true)
	@$(call keep,$(BUILD),test_hooks,True)
	@$(call ninja,$(BUILD))

# The prefix is compiled in (where libphaul-criu.so is), so another one means to configure again.
release: setup-build
	@$(call configure,$(RELEASE),--buildtype=release -Db_ndebug=false -Dtests=false --prefix=$(abspath $(PREFIX)))
	@$(call keep,$(RELEASE),prefix,$(abspath $(PREFIX)))
	@$(call ninja,$(RELEASE))

install: release
	@DESTDIR=$(if $(DESTDIR),$(abspath $(DESTDIR))) meson install -C $(RELEASE) --no-rebuild --quiet

demo: setup build
	@tests/demo/demo

test: setup build
	@tests/run

test-long: setup build
	@tests/run --long

test-drivers: setup build
	@tests/run --drivers

test-services: setup build
	@test "$(SETUP)" = no || scripts/setup --services --check >/dev/null 2>&1 || scripts/setup --services
	@tests/long/test-services --moves $(or $(MOVES),10)

test-soak: setup build
	@tests/fault/soak --moves $(or $(MOVES),300)

test-faults: setup build
	@tests/fault/matrix

test-kernel: build
	@tests/run --kernel

lint: setup build
	@tests/lint/run $(BUILD)

model: setup
	@model/run

fuzz: setup
	@tests/fuzz/run $(SECONDS)

bench: setup build
	@bench/run --check

bench-bars: setup build
	@bench/run --bars --check

bench-quick: setup build
	@bench/run --quick

clean:
	@rm -rf $(BUILD) $(RELEASE) build-asan $(BUILD).log $(RELEASE).log
