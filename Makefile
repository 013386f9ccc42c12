# The front of the build: meson and ninja do the work in build/. `make help` lists the targets.
#
# What is missing on the machine is installed by scripts/setup (Debian and relatives; needs root for that); SETUP=no leaves the machine
# as it is. SECONDS=N is how long `make fuzz` runs.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD := build
JOBS ?= $(shell nproc)
SETUP ?= yes
SECONDS ?= 300
# Prints what the compiler says and nothing else.
NINJA := ninja -C $(BUILD) -j $(JOBS) --quiet | { grep -v '^ninja: no work to do' || :; }

.DEFAULT_GOAL := build
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: build setup-build setup demo test bench fuzz install clean help

help:
	@echo 'make            build phaul; scripts/setup installs what is missing to do so'
	@echo 'make demo       two hosts in namespaces: Redis moves there and back under its clients (root)'
	@echo 'make test       all tests (root)'
	@echo 'make fuzz       fuzz what a peer may send, SECONDS=300'
	@echo 'make install    into PREFIX=/usr/local, below DESTDIR='
	@echo 'make clean      remove everything that was built'
	@echo 'SETUP=no        install nothing on this machine'

# Quiet when nothing is missing; a machine without apt may have it all by other means, and then meson decides.
setup-build:
	@test "$(SETUP)" = no || scripts/setup --build --check >/dev/null 2>&1 || scripts/setup --build || command -v meson >/dev/null

setup:
	@test "$(SETUP)" = no || scripts/setup --check >/dev/null 2>&1 || scripts/setup

# A set-up that was interrupted leaves no build.ninja: it is made anew.
build: setup-build
	@test -e $(BUILD)/build.ninja || { rm -rf $(BUILD)/meson-private $(BUILD)/meson-info; \
		meson setup $(BUILD) --prefix=$(abspath $(PREFIX)) >$(BUILD).log 2>&1 || { cat $(BUILD).log >&2; exit 1; }; \
		mv $(BUILD).log $(BUILD)/setup.log; }
	@$(NINJA)

demo: setup build
	@tests/demo/demo

test: setup build
	@tests/run

fuzz: setup
	@tests/fuzz/run $(SECONDS)

# The prefix is compiled in (where libphaul-criu.so is), so another one means to configure again.
install: build
	@meson introspect $(BUILD) --buildoptions | grep -q '"value": "$(abspath $(PREFIX))"' || \
		{ meson configure $(BUILD) --prefix=$(abspath $(PREFIX)) && $(NINJA) >/dev/null; }
	@DESTDIR=$(if $(DESTDIR),$(abspath $(DESTDIR))) meson install -C $(BUILD) --no-rebuild --quiet

clean:
	@rm -rf $(BUILD) build-asan $(BUILD).log
