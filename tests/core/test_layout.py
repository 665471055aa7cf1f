"""Layouts by their positions: what is read, what is filled with zeros, and where a hole is said to be."""

from __future__ import annotations

import numpy as np
import pytest

from farcore import layout
from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.layout import MAX_LISTED, Layout
from farcore.runs import Kind, Run, paint
from farcore.source import BytesSource
from tests.elfwriter import Dump, load

HEAD = b"0123456789"

# 10 bytes of head, 10 of data, 10 of zeros, 10 excluded, 10 absent, 10 of data.
PIECES = [(10, 20, 500, Kind.DATA), (20, 30, 0, Kind.ZERO), (30, 40, 0, Kind.EXCLUDED), (50, 60, 700, Kind.DATA)]
START, STOP, OFFSET, KIND = (np.array(column) for column in zip(*PIECES, strict=True))
MIXED = Layout(
    "physical",
    60,
    paint(START.astype(np.uint64), STOP.astype(np.uint64), OFFSET.astype(np.uint64), KIND.astype(np.uint8)),
    HEAD,
)


@pytest.mark.parametrize(
    ("start", "stop", "runs"),
    [
        (0, 10, []),
        (3, 7, []),
        (5, 15, [Run(10, 15, Kind.DATA, 500)]),
        (12, 25, [Run(12, 20, Kind.DATA, 502), Run(20, 25, Kind.ZERO, 0)]),
        (59, 60, [Run(59, 60, Kind.DATA, 709)]),
        (15, 15, []),
        (35, 35, []),
    ],
)
def test_a_walk_names_the_runs_behind_the_head(start: int, stop: int, runs: list[Run]) -> None:
    assert list(MIXED.walk(start, stop)) == runs
    assert list(MIXED.walk(start, stop, fill=True)) == runs


@pytest.mark.parametrize(
    ("start", "stop", "before", "address", "length", "kind"),
    [
        (0, 60, 2, 30, 10, "excluded"),
        (25, 33, 1, 30, 3, "excluded"),
        (32, 35, 0, 32, 3, "excluded"),
        (39, 60, 0, 39, 1, "excluded"),
        (40, 60, 0, 40, 10, "absent"),
        (45, 46, 0, 45, 1, "absent"),
    ],
)
def test_a_walk_without_fill_ends_at_the_first_hole(
    start: int, stop: int, before: int, address: int, length: int, kind: str
) -> None:
    walk = MIXED.walk(start, stop)
    for _ in range(before):
        assert next(walk).kind in (Kind.DATA, Kind.ZERO)
    with pytest.raises(FaultError) as caught:
        next(walk)
    fault = caught.value
    assert (fault.address, fault.length, fault.kind, fault.space) == (address, length, kind, "physical")


def test_fill_makes_zeros_of_holes_and_of_nothing_else() -> None:
    walked = list(MIXED.walk(0, 60, fill=True))
    assert [(run.start, run.stop) for run in walked] == [(10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]
    assert [run.kind for run in walked] == [Kind.DATA, Kind.ZERO, Kind.ZERO, Kind.ZERO, Kind.DATA]
    assert [run.offset for run in walked if run.kind is Kind.DATA] == [500, 700]


@pytest.mark.parametrize(
    ("start", "stop", "offset"),
    [(10, 20, 500), (15, 16, 505), (50, 60, 700), (9, 12, None), (0, 5, None), (15, 21, None), (20, 30, None), (45, 55, None)],
)
def test_locate_finds_what_lies_in_the_source_in_one_piece(start: int, stop: int, offset: int | None) -> None:
    assert MIXED.locate(start, stop) == offset


@pytest.mark.parametrize("count", [MAX_LISTED, MAX_LISTED + 1])
def test_locate_answers_alike_of_few_runs_and_of_many(count: int) -> None:
    start = np.arange(count, dtype=np.uint64) * np.uint64(4)
    kind = np.where(np.arange(count) % 3 == 2, Kind.EXCLUDED, Kind.DATA).astype(np.uint8)
    many = Layout("physical", 1 << 20, paint(start, start + np.uint64(3), start * np.uint64(7), kind))
    for i in (0, 1, 2, count - 2, count - 1):
        found = None if i % 3 == 2 else 4 * i * 7 + 1
        assert (many.locate(4 * i + 1, 4 * i + 3), many.locate(4 * i + 1, 4 * i + 4)) == (found, None)


@pytest.mark.parametrize("size", [1, 4096, 1 << 32, (1 << 63) - 1])
def test_a_stored_file_is_one_run(size: int) -> None:
    whole = layout.stored(size)
    assert (whole.size, whole.space, whole.head) == (size, "stored", b"")
    assert list(whole.walk(0, size)) == [Run(0, size, Kind.DATA, 0)]
    assert list(whole.walk(size - 1, size)) == [Run(size - 1, size, Kind.DATA, size - 1)]
    assert layout.stored(size, space="vmcore").space == "vmcore"


def test_an_empty_file_has_no_run() -> None:
    assert layout.stored(0).size == 0
    assert list(layout.stored(0).walk(0, 0)) == []


@pytest.mark.parametrize("bits", [32, 64])
def test_physical_memory_ends_with_its_last_pt_load_and_virtual_memory_with_the_address_width(bits: int) -> None:
    loads = [load(b"page", paddr=0x1000, vaddr=0xC0001000, memsz=0x800), load(b"x", paddr=0x10, vaddr=0xC0000010)]
    content = Dump(loads, bits=bits).tobytes()
    elf = Elf.open(BytesSource(content))
    physical, virtual = layout.physical(elf, len(content)), layout.virtual(elf, len(content))
    assert (physical.space, physical.size) == ("physical", 0x1800)
    assert (virtual.space, virtual.size) == ("virtual", 1 << bits)
    for each, address in ((physical, 0x1000), (virtual, 0xC0001000)):
        assert list(each.walk(address, address + 4)) == [Run(address, address + 4, Kind.DATA, content.index(b"page"))]
        with pytest.raises(FaultError) as caught:
            list(each.walk(address, address + 5))
        assert (caught.value.address, caught.value.kind, caught.value.space) == (address + 4, "excluded", each.space)
