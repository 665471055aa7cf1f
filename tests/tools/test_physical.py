"""Physical memory as readelf's table places it, and as drgn and libkdumpfile read it.

Every dump of tests/data, every *.elf of the folder that FARCORE_DUMPS names, and what tests/elfwriter.py makes. Where an oracle
cannot read a dump at all, that is an expected failure with its own words; once it reads one byte, it must agree on all.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.file import FileSource
from farcore.space import PhysicalSpace
from tests.elfwriter import Dump, Segment, load, note
from tests.requires import TOOLS, requires
from tests.samples import SAMPLES
from tests.tools.test_readelf import readelf_rows

pytestmark = requires("readelf")

PAGE = 4096
CHUNK = 4 << 20
FOLDER = os.environ.get("FARCORE_DUMPS")
# makedumpfile-*-flat.elf is no ELF until it is restored.
FOUND = [path for path in sorted(Path(FOLDER).glob("*.elf")) if path.open("rb").read(4) == b"\x7fELF"] if FOLDER else []
GIVEN = {path.name: path for path in FOUND}
if FOLDER and not GIVEN:
    raise pytest.UsageError(f"FARCORE_DUMPS is {FOLDER}, and there is no *.elf in it")

MEMORY = random.Random(6).randbytes(64 * PAGE)
STATUS = note(("CORE", 1, bytes(336)))


def piece(start: int, length: int, *, base: int = 0, left_out: int = 0) -> Segment:
    """A PT_LOAD of MEMORY[start:][:length] at that place behind ``base``, with pages behind it that were left out."""
    return load(MEMORY[start : start + length], paddr=base + start, memsz=length + left_out)


WRITTEN = {
    "written-overlaps": Dump([STATUS, piece(3 * PAGE, 9 * PAGE), piece(0, 20 * PAGE), piece(5 * PAGE, PAGE), piece(77, 99)]),
    "written-left-out": Dump([STATUS, piece(PAGE, 8 * PAGE, left_out=4 * PAGE), piece(11 * PAGE, PAGE), piece(40 * PAGE, 1)]),
    "written-high": Dump([STATUS, piece(0, 8 * PAGE, base=1 << 63), piece(16 * PAGE, 48 * PAGE, base=(1 << 64) - 65 * PAGE)]),
    "written-32-bit": Dump([STATUS, piece(0, 8 * PAGE, base=0xFFFC0000), piece(PAGE, PAGE, left_out=PAGE)], bits=32, machine=3),
    "written-big-endian": Dump([STATUS, piece(PAGE, 8 * PAGE), piece(32 * PAGE, 3 * PAGE)], data="BE", machine=22),
    "written-cut": Dump([STATUS, piece(0, 8 * PAGE), piece(16 * PAGE, 16 * PAGE)], size=64 + 3 * 56 + 356 + 20 * PAGE),
    "written-pt-notes": Dump([STATUS, piece(0, PAGE), *(note(("CORE", 1, bytes(n % 50))) for n in range(200)), piece(PAGE, 9)]),
    "written-70000": Dump([STATUS, *(piece(n % 4096 * 16, 16, base=n // 4096 * (1 << 20)) for n in range(70_000))]),
}
NAMES = [*SAMPLES, *GIVEN, *WRITTEN]


class Row(NamedTuple):
    """A PT_LOAD by readelf; ``kept`` is as much of p_filesz as the file has."""

    offset: int
    paddr: int
    kept: int
    filesz: int
    memsz: int


class Loaded(NamedTuple):
    """A dump, its PT_LOADs by readelf, and farcore's view of its physical memory."""

    path: Path
    rows: list[Row]
    source: FileSource
    physical: PhysicalSpace


def loaded(path: Path) -> Loaded:
    """The dump at ``path``."""
    size = path.stat().st_size
    rows = [
        Row(offset, paddr, max(0, min(filesz, size - offset)), filesz, memsz)
        for kind, _, offset, _, paddr, filesz, memsz, _ in readelf_rows(path)
        if kind == 1
    ]
    source = FileSource(os.open(path, os.O_RDONLY), size)
    return Loaded(path, rows, source, PhysicalSpace(source, Elf.open(source)))


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest, sample: Callable[[str], Path]) -> Iterator[Path]:
    """Each of the dumps, one after the other."""
    name: str = request.param
    if name in GIVEN:
        yield GIVEN[name]
    elif name in WRITTEN:
        with TemporaryDirectory() as folder:
            yield WRITTEN[name].write(Path(folder, name))
    else:
        yield sample(name)


@pytest.fixture(scope="module")
def dump(path: Path) -> Loaded:
    """Each of the dumps, with what readelf and farcore say of it."""
    return loaded(path)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same addresses as ranges that neither touch nor overlap, ascending."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(each for each in ranges if each[0] < each[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def without(ranges: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of ``ranges`` is not in ``taken``, both merged: where one of the first is open and none of the second."""
    steps: Counter[int] = Counter()
    for each, step in ((ranges, 1), (taken, -2)):
        for start, stop in each:
            steps[start] += step
            steps[stop] -= step
    level, left = 0, []
    for low, high in pairwise(sorted(steps)):
        level += steps[low]
        if level == 1:
            left.append((low, high))
    return left


def there(dump: Loaded) -> list[tuple[int, int]]:
    """The addresses whose bytes the file has."""
    return merged((row.paddr, row.paddr + row.kept) for row in dump.rows)


def excluded(dump: Loaded) -> list[tuple[int, int]]:
    """The addresses that the dump's writer left out."""
    return without(merged((row.paddr + row.filesz, row.paddr + row.memsz) for row in dump.rows), there(dump))


def absent(dump: Loaded) -> list[tuple[int, int]]:
    """The addresses that nothing describes or the file has lost, up to a byte behind the last."""
    return without(without([(0, dump.physical.size + 1)], there(dump)), excluded(dump))


def probes(dump: Loaded) -> list[tuple[int, int]]:
    """(address, length) of reads at both ends of PT_LOADs and anywhere between, across them too, all of it data."""
    rng = random.Random(len(dump.rows))
    kept = [row for row in dump.rows if row.kept]
    reads = []
    for row in rng.sample(kept, min(len(kept), 300)):
        length = min(row.kept, PAGE)
        reads += [(row.paddr, length), (row.paddr + row.kept - length, length)]
    ranges = there(dump)
    for start, stop in rng.choices(ranges, weights=[stop - start for start, stop in ranges], k=300):
        address = rng.randrange(start, stop)
        reads.append((address, rng.randint(1, min(stop - address, 64 << 10))))
    return reads


def test_every_pt_load_reads_as_its_bytes_in_the_file(dump: Loaded) -> None:
    for row in dump.rows:
        for at in range(0, row.kept, CHUNK):
            length = min(CHUNK, row.kept - at)
            assert dump.physical.pread(row.paddr + at, length) == os.pread(dump.source.fd, length, row.offset + at)


def test_what_no_pt_load_has_is_a_fault_of_its_kind(dump: Loaded) -> None:
    assert dump.physical.size == max(row.paddr + max(row.filesz, row.memsz) for row in dump.rows)
    for kind, holes in (("excluded", excluded(dump)), ("absent", absent(dump))):
        for start, stop in holes:
            for address in {start, stop - 1}:
                with pytest.raises(FaultError) as caught:
                    dump.physical.pread(address, 1)
                assert (caught.value.address, caught.value.kind, caught.value.space) == (address, kind, "physical")
    for _, stop in there(dump):
        assert len(dump.physical.pread(stop - 1, 1)) == 1
        with pytest.raises(FaultError) as caught:
            dump.physical.pread(stop - 1, 2)
        assert caught.value.address == stop


@requires("drgn")
def test_drgn_reads_the_same(dump: Loaded) -> None:
    import drgn

    program = drgn.Program()
    try:
        program.set_core_dump(dump.path)
    except ValueError as error:
        pytest.xfail(f"drgn refuses it: {error}")
    if all(row.paddr == 0 for row in dump.rows):
        pytest.xfail("drgn takes p_paddr 0 in all PT_LOADs for: no physical addresses")
    for address, length in probes(dump):
        assert program.read(address, length, physical=True) == dump.physical.pread(address, length), hex(address)
    # It reads what a truncated dump has lost as zeros, and of 32-bit addresses only the lower half.
    lost = merged((row.paddr, row.paddr + row.filesz) for row in dump.rows)
    for address, _ in without(absent(dump), lost):
        if address < dump.physical.size:
            with pytest.raises(drgn.FaultError):
                program.read(address, 1, physical=True)


KDUMPFILE = """
import json, sys
import kdumpfile
dump, answers = kdumpfile.kdumpfile(sys.argv[1]), []
for address, length in json.load(sys.stdin):
    try:
        answers.append(dump.read(kdumpfile.KDUMP_MACHPHYSADDR, address, length).hex())
    except kdumpfile.exceptions.NoDataException:
        answers.append(None)
json.dump(answers, sys.stdout)
"""


@requires("kdumpfile")
def test_kdumpfile_reads_the_same(dump: Loaded) -> None:
    # It reads whole pages, and of a page that is there in part not only that part.
    pages = [(address - address % PAGE, PAGE) for address, _ in probes(dump)]
    ranges = there(dump)
    reads = sorted({page for page in pages if any(start <= page[0] and sum(page) <= stop for start, stop in ranges)})
    command = [TOOLS["kdumpfile"].python, "-c", KDUMPFILE, str(dump.path)]
    done = subprocess.run(command, input=json.dumps(reads), capture_output=True, text=True, timeout=100)
    if done.returncode:
        pytest.xfail(f"libkdumpfile ended with {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}")
    answers: list[str | None] = json.loads(done.stdout)
    if not any(answers):
        pytest.xfail(
            "libkdumpfile finds no page of it: it knows neither this machine's page size nor a VMCOREINFO that says it"
        )
    for (address, length), answer in zip(reads, answers, strict=True):
        assert answer == dump.physical.pread(address, length).hex(), hex(address)
