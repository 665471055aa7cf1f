"""PT_LOADs as runs, against memory painted PT_LOAD by PT_LOAD and byte by byte (tests/painted.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from farcore import segments
from farcore.elf import Elf
from farcore.runs import Kind, Run, Runs
from farcore.source import BytesSource
from tests.elfwriter import Dump, Segment, load, note
from tests.painted import EXCLUDED, Painted, dumps

TOP = (1 << 64) - 1
SIZE = 1 << 20


def elf_of(*loads: Segment, bits: int = 64, data: str = "LE") -> Elf:
    """The dump's headers; what they point at need not be there."""
    return Elf.open(BytesSource(Dump(loads, bits=bits, data=data).tobytes()))


def cells(runs: Runs, low: int, high: int, content: bytes) -> Iterator[tuple[int, int | None]]:
    """What the runs say of [low, high), as tests/painted.py says it."""
    for start, stop, kind, offset in runs.walk(low, high):
        for i in range(stop - start):
            if kind is not Kind.ABSENT:
                yield start + i, content[offset + i] if kind is Kind.DATA else EXCLUDED


def inside(runs: Runs) -> list[Run]:
    """The runs that hold anything."""
    return [run for run in runs.walk(0, 1 << 64) if run.kind is not Kind.ABSENT]


@given(dumps("paddr"))
def test_physical_memory_is_what_the_p_paddrs_say(dump: Painted) -> None:
    elf = Elf.open(BytesSource(dump.content))
    assert dict(cells(segments.physical(elf, len(dump.content)), dump.low, dump.high, dump.content)) == dump.memory
    assert segments.span(elf) == dump.span


@given(dumps("vaddr"))
def test_virtual_memory_is_what_the_p_vaddrs_say(dump: Painted) -> None:
    elf = Elf.open(BytesSource(dump.content))
    assert dict(cells(segments.virtual(elf, len(dump.content)), dump.low, dump.high, dump.content)) == dump.memory


def test_memory_the_dumps_writer_left_out_is_excluded_and_memory_the_file_lost_is_absent() -> None:
    elf = elf_of(load(paddr=0x1000, offset=SIZE - 0x800, filesz=0x1000, memsz=0x3000))
    assert list(segments.physical(elf, SIZE).walk(0x1000, 0x5000)) == [
        Run(0x1000, 0x1800, Kind.DATA, SIZE - 0x800),
        Run(0x1800, 0x2000, Kind.ABSENT, 0),
        Run(0x2000, 0x4000, Kind.EXCLUDED, 0),
        Run(0x4000, 0x5000, Kind.ABSENT, 0),
    ]


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 1 << 63, TOP - 0x1000])
def test_a_pt_load_past_the_end_of_the_file_has_no_data(offset: int) -> None:
    elf = elf_of(load(paddr=0x1000, offset=offset, filesz=0x1000, memsz=0x1800))
    assert inside(segments.physical(elf, SIZE)) == [Run(0x2000, 0x2800, Kind.EXCLUDED, 0)]
    assert segments.span(elf) == 0x2800


def test_what_one_pt_load_lost_another_may_have() -> None:
    elf = elf_of(load(paddr=0, offset=SIZE - 8, filesz=16), load(paddr=4, offset=100, filesz=16))
    assert inside(segments.physical(elf, SIZE)) == [Run(0, 8, Kind.DATA, SIZE - 8), Run(8, 20, Kind.DATA, 104)]


def test_the_first_of_two_pt_loads_over_one_page_is_believed_and_an_exclusion_never_over_data() -> None:
    elf = elf_of(
        load(paddr=0x1000, filesz=0, memsz=0x3000, offset=0),
        load(paddr=0x2000, filesz=0x1000, offset=0x7000),
        load(paddr=0x1800, filesz=0x1000, offset=0x9000),
    )
    assert inside(segments.physical(elf, SIZE)) == [
        Run(0x1000, 0x1800, Kind.EXCLUDED, 0),
        Run(0x1800, 0x2000, Kind.DATA, 0x9000),
        Run(0x2000, 0x3000, Kind.DATA, 0x7000),
        Run(0x3000, 0x4000, Kind.EXCLUDED, 0),
    ]


def test_p_filesz_beyond_p_memsz_is_data_all_the_same() -> None:
    elf = elf_of(load(paddr=0x1000, offset=0, filesz=0x2000, memsz=0x800))
    assert inside(segments.physical(elf, SIZE)) == [Run(0x1000, 0x3000, Kind.DATA, 0)]
    assert segments.span(elf) == 0x3000


@pytest.mark.parametrize("size", [1, 0x1000, 1 << 60])
def test_addresses_past_2_to_the_63_are_addresses_like_any_other(size: int) -> None:
    start = TOP - size
    elf = elf_of(load(paddr=start, vaddr=start, offset=0x100, filesz=min(size, 0x80), memsz=size))
    expected = [Run(start, start + min(size, 0x80), Kind.DATA, 0x100)]
    expected += [Run(start + 0x80, TOP, Kind.EXCLUDED, 0)] if size > 0x80 else []
    assert inside(segments.physical(elf, SIZE)) == inside(segments.virtual(elf, SIZE)) == expected
    assert segments.span(elf) == TOP


@pytest.mark.parametrize(
    ("paddr", "filesz", "memsz"),
    [(TOP, 1, 1), (TOP, 0x1000, 0x1000), (TOP, 0, 1), (TOP - 0xFFF, 0x1000, 0x1000), (1 << 63, 0, 1 << 63), (1, 0, TOP)],
)
def test_a_pt_load_up_to_2_to_the_64_or_past_it_is_left_out_and_the_others_are_not(paddr: int, filesz: int, memsz: int) -> None:
    odd = load(paddr=paddr, vaddr=0x5000, offset=0, filesz=filesz, memsz=memsz)
    elf = elf_of(odd, load(paddr=0x1000, offset=0x100, filesz=0x80))
    assert segments.wraps(elf.loads, "paddr").tolist() == [True, False]
    assert inside(segments.physical(elf, SIZE)) == [Run(0x1000, 0x1080, Kind.DATA, 0x100)]
    assert segments.span(elf) == 0x1080


@pytest.mark.parametrize("data", ["LE", "BE"])
def test_a_32_bit_p_paddr_of_all_ones_is_none_although_nothing_wraps(data: str) -> None:
    # As /proc/kcore writes (fs/proc/kcore.c: p_paddr = (elf_addr_t)-1); drgn passes over it as well.
    nowhere = load(paddr=0xFFFFFFFF, vaddr=0xF8000000, offset=0, filesz=0x1000)
    elf = elf_of(nowhere, load(paddr=0x1000, offset=0x100, filesz=0x80), bits=32, data=data)
    assert inside(segments.physical(elf, SIZE)) == [Run(0x1000, 0x1080, Kind.DATA, 0x100)]
    assert segments.span(elf) == 0x1080
    assert [run.start for run in inside(segments.virtual(elf, SIZE))] == [0, 0xF8000000]


def test_the_last_page_of_32_bits_is_a_page_like_any_other() -> None:
    elf = elf_of(load(paddr=0xFFFFF000, offset=0, filesz=0x1000), bits=32)
    assert inside(segments.physical(elf, SIZE)) == [Run(0xFFFFF000, 1 << 32, Kind.DATA, 0)]
    assert segments.span(elf) == 1 << 32


@pytest.mark.parametrize("paddr", [0, 0x1000, 1 << 40, TOP])
def test_a_pt_load_of_no_bytes_describes_nothing(paddr: int) -> None:
    elf = elf_of(load(paddr=paddr), load(paddr=0x10, offset=0x100, filesz=0x80))
    assert inside(segments.physical(elf, SIZE)) == [Run(0x10, 0x90, Kind.DATA, 0x100)]
    assert segments.span(elf) == 0x90


def test_without_a_pt_load_there_is_no_memory() -> None:
    elf = elf_of(note(("CORE", 1, b"status")))
    assert (inside(segments.physical(elf, SIZE)), segments.span(elf)) == ([], 0)


def test_70_000_pt_loads_are_each_where_they_say() -> None:
    # Every third one again over the one before it, as QEMU's paging=true describes a page once a mapping.
    count = 70_000
    rows = [((n - (n % 3 == 2)) * 0x1000 + (1 << 63), n * 0x1000) for n in range(count)]
    elf = elf_of(*(load(paddr=paddr, offset=offset, filesz=0x800, memsz=0x900) for paddr, offset in rows))
    runs = segments.physical(elf, count * 0x1000)
    first: dict[int, int] = {}
    for paddr, offset in rows:
        first.setdefault(paddr, offset)
    assert len(runs) == 2 * len(first)
    for paddr, offset in first.items():
        assert list(runs.walk(paddr, paddr + 0x901)) == [
            Run(paddr, paddr + 0x800, Kind.DATA, offset),
            Run(paddr + 0x800, paddr + 0x900, Kind.EXCLUDED, 0),
            Run(paddr + 0x900, paddr + 0x901, Kind.ABSENT, 0),
        ]
