"""Program headers as GNU readelf prints them: for real dumps, and for what tests/elfwriter.py makes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from farcore.elf import Elf
from farcore.file import FileSource
from tests.elfwriter import Dump, Segment, load, note
from tests.requires import requires
from tests.samples import SAMPLES

pytestmark = requires("readelf")

TYPES = {"NULL": 0, "LOAD": 1, "NOTE": 4}
FLAGS = {"R": 4, "W": 2, "E": 1}
ROW = re.compile(r"^  (\w+) +0x(\w+) 0x(\w+) 0x(\w+) 0x(\w+) 0x(\w+) ([R ][W ][E ]) (?:0x)?(\w+)$", re.MULTILINE)
Row = tuple[int, int, int, int, int, int, int, int]


def readelf_rows(path: Path) -> list[Row]:
    """(type, flags, offset, vaddr, paddr, filesz, memsz, align), one a program header, and as many as readelf counts."""
    done = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True)
    rows = []
    for kind, *numbers, letters, align in ROW.findall(done.stdout):
        offset, vaddr, paddr, filesz, memsz = (int(number, 16) for number in numbers)
        flags = sum(FLAGS[letter] for letter in letters if letter != " ")
        rows.append((TYPES[kind], flags, offset, vaddr, paddr, filesz, memsz, int(align, 16)))
    counted = re.search(r"There (?:are|is) (\d+) program header", done.stdout)
    assert len(rows) == (int(counted[1]) if counted else 0), done.stdout[:2000] + done.stderr
    return rows


def farcore_rows(path: Path) -> list[Row]:
    """The same of Elf.segments."""
    fd = os.open(path, os.O_RDONLY)
    rows: list[Row] = Elf.open(FileSource(fd, os.fstat(fd).st_size)).segments.tolist()
    return rows


@pytest.mark.parametrize("name", SAMPLES)
def test_a_real_dump_has_the_segments_that_readelf_prints(sample: Callable[[str], Path], name: str) -> None:
    path = sample(name)
    assert farcore_rows(path) == readelf_rows(path) != []


MANY = [load(paddr=0x1000 * n, vaddr=0xC0000000 + n, offset=n, filesz=n, memsz=2 * n) for n in range(70_000)]
WRITTEN = {
    "plain": Dump([note(("CORE", 1, bytes(144))), load(b"a" * 4096, paddr=0x1000, memsz=8192, flags=7, align=0x1000)]),
    "every-flag": Dump([load(paddr=n, flags=n) for n in range(8)]),
    "no-content": Dump([Segment(type=0), load(), note()]),
    "as-qemu-writes": Dump(
        [note(("QEMU", 0, bytes(440))), load(b"ram")], phoff=192, header={"e_ehsize": 8}, trailing=b"1" * 11
    ),
    "odd-phoff": Dump([load(b"x", paddr=1), load(b"y", paddr=2)], phoff=4097),
    "lies": Dump([load(offset=0xFFFFFFFF, filesz=0xFFFFFFFF, memsz=1, vaddr=0xFFFFFFFE, paddr=0xFFFFFFFD)], machine=21),
    "pn-xnum": Dump(MANY),
    "pn-xnum-of-three": Dump(MANY[:3], xnum=True),
    "65535-without-a-section-header": Dump(MANY[:0xFFFF], xnum=False),
    "65534": Dump(MANY[:0xFFFE]),
}


@pytest.mark.parametrize("data", ["LE", "BE"])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_dump_has_the_segments_that_readelf_prints(tmp_path: Path, name: str, bits: int, data: str) -> None:
    path = replace(WRITTEN[name], bits=bits, data=data).write(tmp_path / "vmcore")
    assert farcore_rows(path) == readelf_rows(path) != []


@pytest.mark.parametrize("data", ["LE", "BE"])
def test_64_bit_fields_are_those_that_readelf_prints(tmp_path: Path, data: str) -> None:
    top = (1 << 64) - 1
    segment = load(offset=1 << 60, filesz=1 << 50, memsz=top, vaddr=top - 1, paddr=top - 2, align=1 << 63)
    path = Dump([segment], data=data).write(tmp_path / "vmcore")
    assert farcore_rows(path) == readelf_rows(path) != []


def test_notes_as_written_are_those_that_readelf_prints(tmp_path: Path) -> None:
    notes = [("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1\n"), ("LINUX", 0x700, b"odd")]
    path = Dump([note(*notes[:2]), note(notes[2])]).write(tmp_path / "vmcore")
    printed = subprocess.run(["readelf", "-nW", path], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  (\w*) +0x(\w+)\t", printed, re.MULTILINE)
    assert [(name, int(size, 16)) for name, size in found] == [(name, len(desc)) for name, _, desc in notes]
