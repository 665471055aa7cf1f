# `make help` lists the targets. All of them run in .venv, which is made from pyproject.toml when it is needed.

# Debian's own python3.11 first: it is built with PGO and LTO, and one that pyenv or a container image compiled without them needs
# twice the time for the same work. The first of these that can make a virtual environment is taken.
PYTHON ?= $(shell for python in /usr/bin/python3.11 python3.11 python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$python && break; done)
BIN := .venv/bin
FUZZ_SECONDS ?= 60
# Tests wait most of the time, and those of a file share their servers.
SIDE_BY_SIDE := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-tools test-vm test-wheel test-debian lint types fuzz bench man clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: .venv/.dev ## a dump served, listed and read, on this machine, in less than a minute
	demo/run

test: lint types ## all tests that need no other program
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not tools"

test-tools: .venv/.dev .venv/.tools ## the tests against real programs; installs those (as root), and fails without them
	$(BIN)/python -m tests.requires
	$(BIN)/python -m tests.realdumps
	FARCORE_REQUIRE_TOOLS=1 $(BIN)/pytest $(SIDE_BY_SIDE) -m tools

test-vm: .venv/.dev ## machines that crash in QEMU and are read meanwhile; installs QEMU (as root), 12 minutes
	FARCORE_VM=$${FARCORE_VM:-.cache/vm} $(BIN)/pytest -s tests/vm/test_crash_kernel.py tests/vm/test_large_memory.py

test-wheel: ## sdist, wheel, clean environments: the tests on what pip installs, and a client without a compiler
	.ci/wheel

test-debian: ## core and server on Debian 12's own numpy and aiohttp, as in a crash kernel; installs those (as root)
	.ci/debian

lint: .venv/.dev ## style, format, and which package may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

types: .venv/.dev ## mypy --strict
	$(BIN)/mypy core server client tests benchmarks docs/manpages.py deploy/kdump/collect.py

fuzz: .venv/.dev .venv/.fuzz ## every target in tests/fuzz, FUZZ_SECONDS (60) each
	set -e; for target in tests/fuzz/fuzz_*.py; do \
		$(BIN)/python -m tests.fuzz.$$(basename $$target .py) -max_total_time=$(FUZZ_SECONDS); done

bench: .venv/.dev ## farcore beside nginx, in 15 minutes; needs nginx, gcc and libssl-dev, and root for its cubic half
	$(BIN)/python -m benchmarks

man: .venv/.dev ## manual pages of every command, in build/man
	$(BIN)/python docs/manpages.py build/man

clean: ## removes all that was made here
	rm -rf .venv .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# One stamp an extra of pyproject.toml: dev, tools, fuzz.
.venv/.%: pyproject.toml $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@

$(BIN)/pip:
	@$(or $(PYTHON),false) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 that can make a virtual environment is needed: apt-get install python3.11-venv, or make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
