# SPDX-License-Identifier: MIT
# make run | test | build | bench | bench-quick | bench-loss | conformance | lint | asan-test | fuzz | clean.   ARGS=... is passed on.
#
# Nothing is installed by hand before: missing system packages come through apt, Python's into .venv. What is up to
# date is not done again; two makes at once wait for each other.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-builtin-rules

PYTHON := .venv/bin/python
STAMPS := build/stamps
SOURCES = $(shell find ustack server tools -name '*.py[xi]' -o -name '*.pxd' | LC_ALL=C sort) setup.py
ARGS ?=

# What makes network namespaces and opens raw sockets runs as root, or as root of a user namespace where the system lets
# the caller have one. Said before anything is built where it does not.
IN_NAMESPACES := vagrant/in-namespaces

.PHONY: FORCE run test build bench bench-quick bench-loss conformance lint lint-style lint-cython lint-types lint-warnings asan-test coverage clean distclean locked-build locked-asan locked-fuzz

## Serve the sample site from the userspace stack, check it with curl, go on until Ctrl-C.
run:
	@vagrant/install-packages build run
	@$(IN_NAMESPACES) --check "make $@"
	@$(MAKE) --no-print-directory build
	@exec $(IN_NAMESPACES) $(PYTHON) -m ustack.cli demo $(ARGS)

## Build, then run every test.
test:
	@vagrant/install-packages build run test
	@$(IN_NAMESPACES) --check "make $@"
	@$(MAKE) --no-print-directory build
	@exec $(IN_NAMESPACES) $(PYTHON) -m pytest $(ARGS)

## The modules beside their sources and .venv/bin/ustack.
build:
	@vagrant/install-packages build
	@mkdir -p $(STAMPS)
	@flock build/lock $(MAKE) --no-print-directory locked-build

## The stack against nginx and a bare epoll server, in a few minutes.
bench-quick:
	@vagrant/install-packages build run bench
	@$(IN_NAMESPACES) --check "make $@"
	@$(MAKE) --no-print-directory build
	@exec $(IN_NAMESPACES) $(PYTHON) -m ustack.tools.bench_quick $(ARGS)

## Everybody under every load, in half an hour, with a report in build/bench. ARGS="keepalive --contestants ustack-veth,nginx".
bench:
	@vagrant/install-packages build run bench
	@$(IN_NAMESPACES) --check "make $@"
	@vagrant/install-packages contestants || echo "some contestants are not installed: their cells will say so" >&2
	@$(MAKE) --no-print-directory build
	@exec $(IN_NAMESPACES) $(PYTHON) -m ustack.cli bench $(ARGS)

## The stack against the kernel's over paths with delay, loss, reordering and queues: half an hour, ARGS=--quick for less.
bench-loss:
	@vagrant/install-packages build run bench
	@$(IN_NAMESPACES) --check "make $@"
	@$(MAKE) --no-print-directory build
	@exec $(IN_NAMESPACES) $(PYTHON) -m ustack.tools.bench_loss $(ARGS)

## docs/conformance.md from the tables of requirements. ARGS=--kernel asks the kernel of this machine before (root).
conformance: build
	@$(PYTHON) -m ustack.tools.conformance $(ARGS)

## ruff, cython-lint, mypy (strict), the stubs against the modules, and no warning of the compiler.
lint: lint-style lint-cython lint-types lint-warnings

lint-style: build
	@.venv/bin/ruff check .

lint-cython: build
	@PATH="$$PWD/.venv/bin:$$PATH" cython-lint ustack server tools

lint-types: build
	@.ci/typecheck

lint-warnings: build
	@! grep -rs . build/release/warnings

## The malformed-frame tests under AddressSanitizer and UndefinedBehaviorSanitizer.
asan-test:
	@vagrant/install-packages build run test
	@$(IN_NAMESPACES) --check "make $@"
	@$(MAKE) --no-print-directory build
	@flock build/lock $(MAKE) --no-print-directory locked-asan
	@exec $(IN_NAMESPACES) .ci/asan-pytest $(ARGS)

## libFuzzer, for a minute: ARGS="segments --seconds 600" (CONTRIBUTING.md, Fuzzing).
fuzz:
	@vagrant/install-packages build fuzz
	@$(MAKE) --no-print-directory build
	@flock build/lock $(MAKE) --no-print-directory locked-fuzz
	@exec $(PYTHON) -m ustack.tools.fuzz $(or $(ARGS),all --seconds 12)

## Which lines the tests run, those without the GIL included: build/coverage.txt. Takes most of an hour.
coverage:
	@vagrant/install-packages build run test
	@$(IN_NAMESPACES) --check "make $@"
	@$(MAKE) --no-print-directory build
	@exec .ci/coverage $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find ustack server tools -name '*.so' -delete -o -name '__pycache__' -prune -exec rm -rf {} +
	find ustack server tools -path tools/reference -prune -o -name '*.c' -exec rm -f {} +

distclean: clean
	rm -rf .venv

# ---------------------------------------------------------------- what runs with build/lock held

# A stamp bears the time of the beginning: what changes while a build runs is newer, and built the next time.

locked-build: $(STAMPS)/release
	@:

locked-asan: $(STAMPS)/asan
	@:

locked-fuzz: $(STAMPS)/fuzz
	@:

# A virtual environment knows its own place, and the editable install in it this tree's: a clone that was renamed or
# copied would run the old place's code, or nothing. So does one whose Python has been upgraded under it.
PLACE := $(CURDIR) $(shell /usr/bin/python3 -V 2>&1)

# (An environment of before places were written down, and that is where it says, is as good as new.)
$(STAMPS)/place: FORCE
	@[ -e $@ ] || ! grep -qsF '$(CURDIR)/.venv' .venv/bin/activate || { echo '$(PLACE)' > $@; touch -d 2000-01-01 $@; }
	@[ "$$(cat $@ 2>/dev/null)" = '$(PLACE)' ] || echo '$(PLACE)' > $@

FORCE:

# The interpreter is the system's own: its headers are the ones that apt installed.
$(STAMPS)/venv: pyproject.toml $(STAMPS)/place
	@touch $@.begun
	@/usr/bin/python3 -m venv --clear .venv
	@.venv/bin/pip install -qq --disable-pip-version-check 'setuptools>=77' 'cython>=3.1'
	@# No modules yet: the editable install compiles in a directory that it throws away.
	@USTACK_ONLY=none .venv/bin/pip install -qq --disable-pip-version-check --no-build-isolation -e '.[test,bench,sim]'
	@mv $@.begun $@

$(STAMPS)/release: $(STAMPS)/venv $(SOURCES)
	@touch $@.begun
	@USTACK_BUILD=release $(PYTHON) setup.py -q build_ext --inplace > build/release.log 2>&1 || { cat build/release.log >&2; exit 1; }
	@mv $@.begun $@

$(STAMPS)/asan: $(STAMPS)/venv $(SOURCES) $(shell find ustack server tools -name '*.py')
	@touch $@.begun
	@USTACK_BUILD=asan $(PYTHON) setup.py -q build > build/asan.log 2>&1 || { cat build/asan.log >&2; exit 1; }
	@mv $@.begun $@

# What is fuzzed and what it needs: not the tools.
$(STAMPS)/fuzz: $(STAMPS)/venv $(SOURCES) $(shell find ustack server tools/fuzz -name '*.py')
	@touch $@.begun
	@USTACK_BUILD=fuzz USTACK_ONLY=ustack,server,tools/fuzz $(PYTHON) setup.py -q build > build/fuzz.log 2>&1 || { cat build/fuzz.log >&2; exit 1; }
	@mv $@.begun $@
