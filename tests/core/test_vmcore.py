"""The composed image: what tests/elfwriter.py lays out as fs/proc/vmcore.c does, read back by address."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from farcore import vmcore
from farcore.elf import PHDR_SIZE, PN_XNUM, Bits, Data, Elf
from farcore.errors import FaultError
from farcore.hosts import EM_386, EM_X86_64
from farcore.runs import Kind, Runs, paint
from farcore.source import BytesSource, Window
from farcore.space import PhysicalSpace, Space, VirtualSpace
from farcore.vmcore import LISTED, Linear, VmcoreImage
from tests.elfwriter import Dump, load, note

MEMORY = bytes(range(256)) * 256
NOTES = (("CORE", 1, b"status"), ("VMCOREINFO", 0, b"OSRELEASE=6.1\n"))
# Physical ranges, and where each lies in MEMORY.
RANGES = ((0x1000, 0x3000, 0x4000), (0x4000, 0x4800, 0), (0x10000, 0x11000, 0x9000))


def runs(*extra: tuple[int, int, int]) -> Runs:
    """RANGES, and an exclusion."""
    rows = [*RANGES, *extra]
    start, stop, offset = np.array([*rows, (0x5000, 0x9000, 0)], np.uint64).T
    return paint(start, stop, offset, np.array([Kind.DATA] * len(rows) + [Kind.EXCLUDED], np.uint8))


def composed(found: Runs, *linear: Linear, bits: Bits = 64, data: Data = "LE", machine: int = EM_X86_64) -> VmcoreImage:
    """The image with NOTES."""
    raw = b"".join(vmcore.note(name, kind, desc, data) for name, kind, desc in NOTES)
    return vmcore.compose(vmcore.header(machine, bits, data), found, raw, linear)


def content(image: VmcoreImage) -> bytes:
    """All its bytes."""
    return bytes(Space(BytesSource(MEMORY), image.layout).pread(0, image.layout.size))


@pytest.mark.parametrize(("bits", "data"), list(product((32, 64), ("LE", "BE"))))
def test_the_image_is_byte_for_byte_what_the_kernel_would_lay_out(bits: Bits, data: Data) -> None:
    image = composed(runs(), bits=bits, data=data)
    front = {32: 52, 64: 64}[bits] + 4 * {32: 32, 64: 56}[bits]
    written = [note(*NOTES, offset=0x1000)]
    at = 0x2000
    for start, stop, offset in RANGES:
        held = MEMORY[offset : offset + stop - start]
        written.append(load(held, paddr=start, vaddr=start, offset=at))
        at += -(-len(held) // 4096) * 4096
    expected = Dump(written, bits=bits, data=data, size=at).tobytes()
    assert front < 4096
    assert content(image) == expected
    assert Elf.open(BytesSource(expected)).segments.tobytes() == image.elf.segments.tobytes()


def test_what_was_excluded_faults_in_the_image_as_absent_memory() -> None:
    source = BytesSource(content(composed(runs())))
    memory = PhysicalSpace(source, Elf.open(source))
    for start, stop, offset in RANGES:
        assert memory.pread(start, stop - start) == MEMORY[offset : offset + stop - start]
    for hole in (0, 0x3000, 0x4800, 0x5000, 0x8FFF, 0xF000):
        with pytest.raises(FaultError, match="absent"):
            memory.pread(hole, 1)


def test_virtual_addresses_follow_the_kernels_maps_and_its_image_is_described_again_without_its_bytes() -> None:
    direct, text = Linear(0, 0x10000, 0xFFFF888000000000), Linear(0x2000, 0x5000, 0xFFFFFFFF80002000, again=True)
    plain, image = composed(runs()), composed(runs(), direct, text)
    assert image.layout.size == plain.layout.size
    source = BytesSource(content(image))
    elf = Elf.open(source)
    virtual = VirtualSpace(source, elf)
    assert virtual.pread(0xFFFF888000001234, 0x100) == MEMORY[0x4234:0x4334]
    assert virtual.pread(0xFFFFFFFF80002000, 0x1000) == MEMORY[0x5000:0x6000]
    assert virtual.pread(0xFFFFFFFF80004000, 0x800) == MEMORY[:0x800]
    assert virtual.pread(0x10000, 0x1000) == MEMORY[0x9000:0xA000]
    with pytest.raises(FaultError):
        virtual.pread(0xFFFFFFFF80004800, 1)
    assert [int(each) for each in elf.loads["vaddr"][:2]] == [0xFFFFFFFF80002000, 0xFFFFFFFF80004000]


def test_a_32_bit_image_of_more_than_4_gib_is_elf64_of_the_same_machine() -> None:
    small, large = (
        composed(runs(), bits=32, machine=EM_386),
        composed(runs((1 << 32, (1 << 32) + 16, 0)), bits=32, machine=EM_386),
    )
    assert [(image.elf.header.bits, image.elf.header.machine) for image in (small, large)] == [(32, EM_386), (64, EM_386)]
    source = BytesSource(content(large))
    assert PhysicalSpace(source, Elf.open(source)).pread(1 << 32, 16) == MEMORY[:16]


def many(count: int) -> Runs:
    """So many runs of 16 bytes."""
    start = np.arange(count, dtype=np.uint64) * np.uint64(4096)
    return Runs(start, start + np.uint64(16), start % np.uint64(4096), np.zeros(count, np.uint8))


def test_from_65535_program_headers_on_the_count_is_extended_and_the_warning_says_who_cannot_read_it() -> None:
    below, above = (composed(many(count)) for count in (PN_XNUM - 2, PN_XNUM - 1))
    assert (below.elf.header.phnum, vmcore.too_many(below.elf)) == (PN_XNUM - 1, None)
    assert above.elf.header.phnum == PN_XNUM
    assert "more than crash and makedumpfile take" in (vmcore.too_many(above.elf) or "")
    head = BytesSource(above.layout.head)
    assert len(Elf.open(head).segments) == PN_XNUM


@pytest.mark.parametrize(("bits", "data"), list(product((32, 64), ("LE", "BE"))))
def test_any_stretch_of_the_headers_is_what_the_whole_of_them_has_there(bits: Bits, data: Data) -> None:
    text = Linear(0x2000, 0x5000, 0x80002000, again=True)
    image = composed(many(PN_XNUM - 5) if bits == 64 else runs(), text, bits=bits, data=data)
    headers, whole = image.headers, bytes(image.headers.pread(0, image.headers.size))
    rng = np.random.default_rng(1)
    edges = [0, 52, 64, 120, headers.size - 4096 - 30, headers.size - 1, *rng.integers(0, headers.size, 20).tolist()]
    for start in edges:
        for length in (1, 31, 56, PHDR_SIZE[bits] * 3 + 1, 5000):
            stop = min(headers.size, max(0, start) + length)
            assert headers.pread(start, stop - start) == whole[start:stop]


def test_of_a_dump_in_millions_of_fragments_each_is_described_and_only_the_first_are_listed() -> None:
    count = LISTED + 1000
    image = composed(many(count), Linear(0, count * 4096, 0xFFFF888000000000))
    headers = Elf.open(Window(image.headers, 0, image.headers.size))
    assert len(headers.loads) == count
    start = np.arange(count, dtype=np.uint64) * np.uint64(4096)
    assert (headers.loads["paddr"] == start).all()
    assert (headers.loads["vaddr"] == start + np.uint64(0xFFFF888000000000)).all()
    assert (len(image.elf.segments), image.elf.unlisted) == (LISTED, 1 + count - LISTED)
    assert image.elf.segments.tobytes() == headers.segments[:LISTED].tobytes()


def test_a_dump_without_any_page_is_a_header_and_its_notes() -> None:
    image = composed(many(0))
    source = BytesSource(content(image))
    assert (len(Elf.open(source).loads), len(vmcore.read_notes(image.layout.head[0x1000:], image.elf.header).notes)) == (
        0,
        2,
    )
