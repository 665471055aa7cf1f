"""The real programs that tests run: ``@requires("readelf")`` marks a test as one of the ``tools`` tier.

It is skipped where one is missing, and fails there with FARCORE_REQUIRE_TOOLS=1; every run ends by naming those that ran.
``python -m tests.requires`` installs the missing ones' Debian packages, for `make test-tools`. A new tool is a line in TOOLS.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, the Debian package that has it, and how it is asked for its version.

    ``python``: it is a module of that interpreter; without a package, one that pip installs with farcore.
    """

    name: str
    package: str = ""
    version: str = "--version"
    python: str = ""

    def found(self) -> bool:
        """Whether it can be run."""
        if not self.python:
            return program(self.name) is not None
        return shutil.which(self.python) is not None and self._run("-c", f"import {self.name}").returncode == 0

    def says(self) -> str:
        """Its version number."""
        asked = ("-c", f"import {self.name}; print({self.name}.__version__)") if self.python else (self.version,)
        done = self._run(*asked)
        if done.returncode and self.package:
            done = subprocess.run(["dpkg-query", "-W", self.package], capture_output=True, text=True)
        numbers = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        return numbers[0] if numbers else "of an unknown version"

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python or program(self.name) or self.name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)


def program(name: str) -> str | None:
    """Where it is, in PATH or beside this interpreter, where pip has put it; None where it is not."""
    return shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("bash", "bash"),
        Tool("boto3", python=sys.executable),
        Tool("crash", "crash"),
        Tool("curl", "curl"),
        Tool("debuginfod", "debuginfod"),
        Tool("drgn", python=sys.executable),
        Tool("fusermount3", "fuse3"),
        Tool("gdb", "gdb"),
        Tool("gdb-multiarch", "gdb-multiarch"),
        # Debian's module is there for Debian's own Python alone.
        Tool("kdumpfile", "python3-libkdumpfile", python="/usr/bin/python3"),
        Tool("kubernetes_validate", python=sys.executable),
        Tool("makedumpfile", "makedumpfile", "-v"),
        Tool("man", "man-db"),
        Tool("nginx", "nginx", "-v"),
        Tool("openssl", "openssl", "version"),
        Tool("readelf", "binutils"),
        Tool("systemd-analyze", "systemd"),
        Tool("systemd-nspawn", "systemd-container"),
        Tool("vmcore-dmesg", "kexec-tools"),
        Tool("weed", version="version"),
    )
}
requires = pytest.mark.requires
_RAN = "tool that ran"


@dataclass(slots=True, eq=False)
class ToolTests:
    """A pytest plugin: the marker, the refusal to skip, the list at the end of the run."""

    strict: bool
    ran: Counter[str] = field(default_factory=Counter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """What requires a tool or a real dump is in the tier ``tools``, before -m selects."""
        for item in items:
            if "real_dumps" in getattr(item, "fixturenames", ()):
                item.add_marker("tools")
            for name in _needs(item):
                if name not in TOOLS:
                    raise pytest.UsageError(f"{item.nodeid} requires {name!r}, which is not in tests/requires.py")
                item.add_marker("tools")

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skips where a tool is missing."""
        missing = [name for name in _needs(item) if not TOOLS[name].found()]
        if missing:
            pytest.skip(f"{', '.join(missing)} is not installed")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Notes which tools a test ran; with FARCORE_REQUIRE_TOOLS=1 a skip in this tier is a failure."""
        report = yield
        if report.when == "call" and not report.skipped:
            report.user_properties.extend((_RAN, name) for name in _needs(item))
        if report.skipped and self.strict and item.get_closest_marker("tools") and not hasattr(report, "wasxfail"):
            report.outcome = "failed"
            report.longrepr = f"FARCORE_REQUIRE_TOOLS=1, but this was skipped: {report.longreprtext}"
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts them, whichever process of several it was that ran the test."""
        self.ran.update(str(name) for key, name in report.user_properties if key == _RAN)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says which tools ran, with their versions, and which did not."""
        ran = [f"{name} {TOOLS[name].says()} ({count} tests)" for name, count in sorted(self.ran.items())]
        idle = [name if tool.found() else f"{name} (not installed)" for name, tool in TOOLS.items() if name not in self.ran]
        terminalreporter.write_line(f"real tools that ran: {', '.join(ran) or 'none'}")
        if idle:
            terminalreporter.write_line(f"real tools that did not: {', '.join(idle)}")


def _needs(item: pytest.Item) -> list[str]:
    return sorted({name for mark in item.iter_markers("requires") for name in mark.args})


def plugin() -> ToolTests:
    """The plugin, strict where the environment says so."""
    return ToolTests(strict=os.environ.get("FARCORE_REQUIRE_TOOLS") == "1")


def install() -> None:
    """apt-get for the packages of the missing tools; the line to type where that needs another user."""
    packages = sorted({tool.package for tool in TOOLS.values() if tool.package and not tool.found()})
    command = ["apt-get", "install", "-qq", "--no-install-recommends", *packages]
    if packages and os.geteuid():
        raise SystemExit(f"not installed; as root: {' '.join(command)}")
    if packages:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    install()
