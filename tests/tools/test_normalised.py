"""The normalised image of every dump that test_physical.py knows, written to a file: what readelf and drgn make of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from farcore import notes
from farcore.elf import Elf
from farcore.file import FileSource
from farcore.image import normalised
from farcore.space import Space
from tests.requires import requires
from tests.tools.test_physical import CHUNK, PAGE, loaded, path, probes
from tests.tools.test_readelf import readelf_rows

__all__ = ["path"]  # the fixture: each dump, one after the other

pytestmark = requires("readelf")

HEADER = {"ELF32": (52, 32), "ELF64": (64, 56)}


class Pair(NamedTuple):
    """A dump and its image."""

    dump: Path
    image: Path


@pytest.fixture(scope="module")
def pair(path: Path) -> Iterator[Pair]:
    """Each of the dumps with its image, which lasts as long as its tests."""
    source = FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)
    elf = Elf.open(source)
    space = Space(source, normalised(elf, source.size, notes.read(source, elf).extents))
    with TemporaryDirectory() as folder:
        image = Path(folder, "vmcore")
        with image.open("wb") as file:
            for at in range(0, space.size, CHUNK):
                file.write(space.pread(at, min(CHUNK, space.size - at)))
        yield Pair(path, image)


def readelf(option: str, path: Path) -> subprocess.CompletedProcess[str]:
    """What readelf prints, and says on stderr."""
    return subprocess.run(["readelf", "-W", option, path], capture_output=True, text=True, check=True)


def test_readelf_has_no_complaint(pair: Pair) -> None:
    # Of `-S` it does: sh_info of section header 0, which is where the gABI puts the count, is news to it.
    assert [readelf(option, pair.image).stderr for option in ("-h", "-l", "-n")] == [""] * 3


def test_the_header_says_what_makedumpfile_and_the_kernel_look_for(pair: Pair) -> None:
    field = re.compile(r"^  (\S[^:]*): +(\S.*?)(?: \(.*\))?$", re.MULTILINE)
    printed, before = (dict(field.findall(readelf("-h", path).stdout)) for path in (pair.image, pair.dump))
    ehsize, phentsize = HEADER[printed["Class"]]
    assert printed["Size of this header"] == f"{ehsize}"
    assert printed["Start of program headers"] == f"{ehsize}"
    assert printed["Size of program headers"] == f"{phentsize}"
    for same in ("Class", "Data", "Version", "Type", "Machine", "Flags"):
        assert printed[same] == before[same]


def test_readelf_finds_one_pt_note_and_the_same_pt_loads_each_on_its_own_pages(pair: Pair) -> None:
    size = pair.dump.stat().st_size
    rows, before = readelf_rows(pair.image), [row for row in readelf_rows(pair.dump) if row[0] == 1]
    kind, flags, at, vaddr, paddr, filesz, memsz, align = rows[0]
    assert (kind, flags, vaddr, paddr, align) == (4, 0, 0, 0, 0)
    assert at % PAGE == 0
    assert filesz == memsz
    end = at + filesz
    assert len(rows) == 1 + len(before)
    for row, (_, flags, offset, vaddr, paddr, filesz, memsz, _) in zip(rows[1:], before, strict=True):
        kept = max(0, min(filesz, size - offset))
        assert row == (1, flags, row[2], vaddr, paddr, kept, max(filesz, memsz), 0)
        assert row[2] - paddr % PAGE == -(-end // PAGE) * PAGE
        end = row[2] + kept
    assert pair.image.stat().st_size == -(-end // PAGE) * PAGE


def test_every_pt_load_has_its_bytes(pair: Pair) -> None:
    before = [row for row in readelf_rows(pair.dump) if row[0] == 1]
    with pair.dump.open("rb") as dump, pair.image.open("rb") as image:
        for row, old in zip(readelf_rows(pair.image)[1:], before, strict=True):
            for at in range(0, row[5], CHUNK):
                length = min(CHUNK, row[5] - at)
                found = os.pread(image.fileno(), length, row[2] + at)
                assert found == os.pread(dump.fileno(), length, old[2] + at)


def test_readelf_prints_the_same_notes(pair: Pair) -> None:
    def printed(path: Path) -> list[str]:
        return [line for line in readelf("-n", path).stdout.splitlines() if re.match(r"  \S* +0x\w+\t", line)]

    assert printed(pair.image) == printed(pair.dump) != []


def test_drgn_takes_the_image_where_it_takes_the_dump_and_reads_the_same_memory(pair: Pair) -> None:
    drgn = pytest.importorskip("drgn", reason="drgn is not installed: pip install drgn")
    dump, image = drgn.Program(), drgn.Program()
    try:
        dump.set_core_dump(pair.dump)
    except ValueError as error:
        pytest.xfail(f"drgn refuses the dump itself: {error}")
    image.set_core_dump(pair.image)
    assert (image.flags, image.platform) == (dump.flags, dump.platform)
    known = loaded(pair.dump)
    if all(row.paddr == 0 for row in known.rows):
        pytest.xfail("drgn takes p_paddr 0 in all PT_LOADs for: no physical addresses")
    for address, length in probes(known):
        assert image.read(address, length, physical=True) == dump.read(address, length, physical=True), hex(address)
