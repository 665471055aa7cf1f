"""Real kernels' dumps with their vmlinux, crash and drgn: the fixture ``real_dumps`` gives their paths.

They stand in the folder that FARCORE_DUMPS names, else in .cache/dumps, which ``python -m tests.realdumps`` fills by
tests/vm/make-dumps (3 GB, 4 minutes on two cores) for `make test-tools`. A test that asks for one that is not there is skipped,
and fails with FARCORE_REQUIRE_TOOLS=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
# What tests ask for, by the names of make-dumps' targets, and the file of each. The later crash is the target crash's second.
FILES: Final = {
    "panic": "qemu-x86_64-panic.elf",
    "later": "qemu-x86_64-la57-panic.elf",
    "kdump": "kdump-x86_64.elf",
    "cross": "kdump-x86_64-via-i386.elf",
    "kdump-aarch64": "kdump-aarch64.elf",
    "vmlinux": "vmlinux-x86_64",
    "vmlinux-later": "vmlinux-x86_64-later",
    "vmlinux-aarch64": "vmlinux-aarch64",
    "crash": "crash-8.0.2/crash",
    "crash-later": "crash-8.0.6/crash",
    "gdb": "gdb-16.3/gdb",
    "drgn": "drgn/bin/drgn",
}
TARGETS: Final = [name for name in FILES if name != "crash-later"]
# The vmlinux of each that has one.
SYMBOLS: Final = {
    **dict.fromkeys(("panic", "kdump", "cross"), "vmlinux"),
    "later": "vmlinux-later",
    "kdump-aarch64": "vmlinux-aarch64",
}


@dataclass(frozen=True, slots=True)
class RealDumps:
    """Called with a name of FILES it gives that file's path; none of them is to be written to."""

    folder: Path

    def __call__(self, name: str) -> Path:
        path = self.folder / FILES[name]
        if not path.exists():
            pytest.skip(f"{path} is not there: {_how_to_make(self.folder, name.removesuffix('-later'))}")
        return path


def folder() -> Path:
    """Where they are, or would be."""
    given = os.environ.get("FARCORE_DUMPS")
    return Path(given) if given else ROOT / ".cache" / "dumps"


def _how_to_make(into: Path, target: str) -> str:
    return f"tests/vm/make-dumps -o {into} {target}"


def make() -> int:
    """Makes what is missing in .cache/dumps, a line each; nothing where FARCORE_DUMPS names a folder. Returns the status."""
    if os.environ.get("FARCORE_DUMPS"):
        print(f"real dumps: those in {folder()}")
        return 0
    folder().mkdir(parents=True, exist_ok=True)
    return subprocess.run([sys.executable, "-m", "tests.vm", "-o", folder(), *TARGETS], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(make())
