"""Space: the source contract over every kind of layout, and reads of dumps against painted memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore import layout
from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.file import FileSource
from farcore.layout import Layout
from farcore.runs import Kind, paint
from farcore.source import BytesSource, Extent, Source, Window
from farcore.space import PhysicalSpace, Space, VirtualSpace
from tests.elfwriter import Dump, Segment, load, note
from tests.faulty import Faulty
from tests.painted import Painted, dumps
from tests.source_contract import FileContract, SourceContract

HIGH = 0xFFFF888000000000


def physical(*segments: Segment, bits: int = 64) -> PhysicalSpace:
    """Physical memory of a dump."""
    content = BytesSource(Dump(segments, bits=bits).tobytes())
    return PhysicalSpace(content, Elf.open(content))


def scattered(content: bytes, *, base: int = 0) -> list[Segment]:
    """PT_LOADs of 1,000 bytes that make up ``content`` from ``base`` on; in the file the last comes first."""
    starts = range(0, len(content), 1000)
    return [load(content[at : at + 1000], paddr=at, vaddr=base + at) for at in reversed(starts)]


class TestPhysicalSpace(SourceContract):
    def make(self, content: bytes) -> Source:
        return physical(note(("CORE", 1, b"status")), *scattered(content))


class TestPhysicalSpaceOfOverlaps(SourceContract):
    def make(self, content: bytes) -> Source:
        # The same memory once more, in pieces of another size, behind an exclusion of all of it.
        again = [load(content[at : at + 777], paddr=at) for at in range(0, len(content), 777)]
        return physical(load(memsz=len(content)), *again, *scattered(content))


class TestWindowOverVirtualSpace(SourceContract):
    def make(self, content: bytes) -> Source:
        dump = BytesSource(Dump(scattered(content, base=HIGH)).tobytes())
        return Window(VirtualSpace(dump, Elf.open(dump)), HIGH, len(content))


class TestSpaceBehindAHead(SourceContract):
    def make(self, content: bytes) -> Source:
        head, zeros = content[:1000], bytes(1000)
        below = zeros + content[1000:]
        edges = np.array([[1000], [max(1000, len(content))]], np.uint64)
        runs = paint(edges[0], edges[1], edges[0], np.zeros(1, np.uint8))
        return Space(BytesSource(below), Layout("vmcore", len(content), runs, head))


class TestSpaceOverAFile(FileContract):
    def open(self, path: Path) -> Source:
        fd = os.open(path, os.O_RDONLY)
        size = os.fstat(fd).st_size
        return Space(FileSource(fd, size), layout.stored(size))


def expect(space: Space, dump: Painted, start: int, length: int) -> None:
    """A read is the painted bytes, or a fault at the first byte that is none, of its kind."""
    wanted = range(start, start + length)
    # An ELF32 p_vaddr + p_memsz may go past 4 GiB, where its address space ends.
    memory = {address: byte for address, byte in dump.memory.items() if address < space.size}
    hole = next((address for address in wanted if memory.get(address) is None), None)
    if hole is None:
        assert space.pread(start, length) == bytes(memory[address] or 0 for address in wanted)
        return
    with pytest.raises(FaultError) as caught:
        space.pread(start, length)
    assert caught.value.space == space.layout.space
    assert (caught.value.address, caught.value.kind) == (hole, "excluded" if hole in memory else "absent")


@given(dumps("paddr"), st.data())
def test_physical_reads_give_what_was_painted_or_fault_where_nothing_was(dump: Painted, draw: st.DataObject) -> None:
    source = BytesSource(dump.content)
    space = PhysicalSpace(source, Elf.open(source))
    assert space.size == dump.span
    for address in range(dump.low, dump.high):
        expect(space, dump, address, 1)
    start = draw.draw(st.integers(dump.low, dump.high))
    expect(space, dump, start, draw.draw(st.integers(0 if start <= dump.span else 1, dump.high - start + 1)))


@given(dumps("vaddr"), st.data())
def test_virtual_reads_give_what_was_painted_or_fault_where_nothing_was(dump: Painted, draw: st.DataObject) -> None:
    source = BytesSource(dump.content)
    elf = Elf.open(source)
    space = VirtualSpace(source, elf)
    assert space.size == 1 << elf.header.bits
    for address in range(dump.low, min(dump.high, space.size)):
        expect(space, dump, address, 1)
    start = draw.draw(st.integers(dump.low, min(dump.high, space.size)))
    expect(space, dump, start, draw.draw(st.integers(0, dump.high - start + 1)))


@given(dumps("paddr"), st.data())
def test_a_batch_faults_as_its_first_bad_read_does_and_else_gives_them_all(dump: Painted, draw: st.DataObject) -> None:
    source = BytesSource(dump.content)
    space = PhysicalSpace(source, Elf.open(source))
    extents = st.builds(Extent, st.integers(dump.low, dump.high), st.integers(1, 8))
    batch = draw.draw(st.lists(extents, max_size=4))
    alone: list[bytes | tuple[int, str]] = []
    for extent in batch:
        try:
            alone.append(bytes(space.pread(*extent)))
        except FaultError as fault:
            alone.append((fault.address, fault.kind))
    faults = [one for one in alone if isinstance(one, tuple)]
    if faults:
        with pytest.raises(FaultError) as caught:
            space.preadv(batch)
        assert (caught.value.address, caught.value.kind) == faults[0]
    else:
        assert [bytes(found) for found in space.preadv(batch)] == alone


@pytest.mark.parametrize(
    ("start", "length", "address", "missing", "kind"),
    [
        (0, 1, 0, 1, "absent"),
        (0xFF0, 0x20, 0xFF0, 0x10, "absent"),
        (0x1000, 0x1000, 0x1004, 0xFFC, "excluded"),
        (0x1FFF, 2, 0x1FFF, 1, "excluded"),
        (0x2000, 1, 0x2000, 1, "absent"),
        (0x1000, 0x8000, 0x1004, 0xFFC, "excluded"),
        (0x3000, 0x1001, 0x4000, 1, "absent"),
        (0x4000, 1, 0x4000, 1, "absent"),
        (0x9000, 16, 0x9000, 16, "absent"),
    ],
)
def test_a_hole_is_a_fault_with_its_address_its_length_its_kind_and_its_space(
    start: int, length: int, address: int, missing: int, kind: str
) -> None:
    space = physical(load(b"page", paddr=0x1000, memsz=0x1000), load(bytes(0x1000), paddr=0x3000))
    with pytest.raises(FaultError) as caught:
        space.pread(start, length)
    fault = caught.value
    assert (fault.address, fault.length, fault.kind, fault.space) == (address, missing, kind, "physical")
    assert f"physical address {address:#x}" in str(fault)
    assert kind in str(fault)


def test_a_read_up_to_the_end_of_a_64_bit_space_faults_and_one_of_nothing_there_does_not() -> None:
    content = BytesSource(Dump([load(b"top", vaddr=(1 << 64) - 4)]).tobytes())
    space = VirtualSpace(content, Elf.open(content))
    assert bytes(space.pread((1 << 64) - 4, 3)) == b"top"
    with pytest.raises(FaultError) as caught:
        space.pread((1 << 64) - 4, 4)
    assert (caught.value.address, caught.value.kind, caught.value.space) == ((1 << 64) - 1, "absent", "virtual")
    assert space.pread(1 << 64, 0).nbytes == 0
    with pytest.raises(FaultError):
        space.pread(1 << 64, 1)


class Batches(Source):
    """Keeps every batch that is passed down to it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[list[Extent]] = []

    def pread(self, offset: int, length: int) -> memoryview:
        return self.preadv([Extent(offset, length)])[0]

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        self.asked.append(list(extents))
        return [memoryview(bytes(length)) for _, length in self.asked[-1]]


def test_a_batch_is_asked_of_the_source_below_as_one() -> None:
    content = Dump([load(b"a" * 16, paddr=0x10), load(b"b" * 16, paddr=0x20), load(b"c" * 16, paddr=0x40)]).tobytes()
    below = Batches(len(content))
    a, b, c = (content.index(letter * 16) for letter in (b"a", b"b", b"c"))
    PhysicalSpace(below, Elf.open(BytesSource(content))).preadv([Extent(0x44, 4), Extent(0x18, 16), Extent(0x20, 0)])
    # The second and the third PT_LOAD lie one behind the other, in memory as in the file.
    assert b == a + 16
    assert below.asked == [[(c + 4, 4), (a + 8, 16)]]


def test_a_batch_with_a_hole_reads_nothing_below() -> None:
    content = Dump([load(b"page", paddr=0x1000)]).tobytes()
    below = Batches(len(content))
    space = PhysicalSpace(below, Elf.open(BytesSource(content)))
    with pytest.raises(FaultError):
        space.preadv([Extent(0x1000, 4), Extent(0x1002, 4)])
    assert below.asked == []


def test_what_the_disk_does_not_give_is_a_fault_where_it_lies_in_the_file() -> None:
    content = Dump([load(b"page", paddr=0x1000)]).tobytes()
    at = content.index(b"page") + 2
    source = Faulty(BytesSource(content), at={at: "unreadable"})
    space = PhysicalSpace(source, Elf.open(source))
    assert bytes(space.pread(0x1000, 2)) == b"pa"
    with pytest.raises(FaultError) as caught:
        space.pread(0x1000, 4)
    assert (caught.value.address, caught.value.kind, caught.value.space) == (at, "unreadable", "stored")


def test_zeros_of_a_layout_are_zeros_and_read_nothing_below() -> None:
    zeros = np.array([0], np.uint64), np.array([100], np.uint64), np.array([0], np.uint64), np.array([Kind.ZERO], np.uint8)
    below = Batches(0)
    assert Space(below, Layout("vmcore", 100, paint(*zeros))).pread(10, 80) == bytes(80)
    assert below.asked in ([], [[]])


def test_70_000_pt_loads_are_read_right() -> None:
    count = 70_000
    loads = [load(n.to_bytes(4, "little"), paddr=(1 << 63) + 16 * ((n * 7919) % count), memsz=8) for n in range(count)]
    space = physical(*loads)
    for n in range(0, count, 7):
        paddr = loads[n].paddr
        assert space.pread(paddr, 4) == n.to_bytes(4, "little")
        with pytest.raises(FaultError) as caught:
            space.pread(paddr, 5)
        assert (caught.value.address, caught.value.kind) == (paddr + 4, "excluded")
