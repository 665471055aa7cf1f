"""What libkdumpfile finds in the notes of a Xen machine, and readelf calls them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farcore import notes, xen
from farcore.elf import Elf
from farcore.source import BytesSource
from tests import xenwriter
from tests.requires import TOOLS, requires

SCRIPT = """
import sys, kdumpfile
found = kdumpfile.kdumpfile(sys.argv[1]).attr
print(*(found["xen." + name] for name in ("type", "version.major", "version.minor", "phys_start")))
"""
SYSTEM = "1"  # KDUMP_XEN_SYSTEM


@requires("kdumpfile")
@pytest.mark.parametrize(("machine", "bits"), [(62, 64), (3, 32)])
def test_the_hypervisor_is_the_one_that_libkdumpfile_finds(tmp_path: Path, machine: int, bits: int) -> None:
    # Not of both kinds in one file: libkdumpfile 0.5.1 takes the longs to be e_machine's, and version 4.17 for 4.0.
    dump = xenwriter.dump(machine=machine, bits=bits, elf=bits)
    path = dump.write(tmp_path / "vmcore")
    done = subprocess.run([TOOLS["kdumpfile"].python, "-c", SCRIPT, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    source = BytesSource(dump.tobytes())
    known = xen.of(notes.read(source, Elf.open(source)).notes, "LE")
    assert known is not None
    assert done.stdout.split() == [SYSTEM, *str(known.version).split("."), str(known.phys_start)]


@requires("readelf")
def test_readelf_finds_the_same_notes(tmp_path: Path) -> None:
    path = xenwriter.dump(cr3=(0x1000, 0x2000)).write(tmp_path / "vmcore")
    done = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("  Xen")]
    assert [(row[0], int(row[1], 16)) for row in rows] == [("Xen", 32), ("Xen", 32), ("Xen", 80)]
