"""The image: byte for byte what tests/elfwriter.py lays out as fs/proc/vmcore.c does, and the same painted memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore import arch
from farcore.elf import PN_XNUM, Bits, Data, Elf
from farcore.errors import BadDumpError, FaultError
from farcore.hosts import HOSTS, Host
from farcore.image import normalised
from farcore.runs import Kind
from farcore.source import BytesSource, Extent
from farcore.space import PhysicalSpace, Space
from tests.elfwriter import EHDR_SIZE, PHDR_SIZE, SHDR_SIZE, Dump, Note, Segment, load, note
from tests.painted import Painted, dumps

SHAPES = list(product((32, 64), ("LE", "BE")))
shapes = pytest.mark.parametrize(("bits", "data"), SHAPES)
NOTES: tuple[Note, ...] = (("CORE", 1, b"status"), ("VMCOREINFO", 0, b"OSRELEASE=6.1\n"))
LOADS = (
    load(b"kernel text", paddr=0x1000000, vaddr=0xC1000000, flags=5, align=0x200000),
    load(b"low memory" * 1000, paddr=0x1234, vaddr=0xC0001234, memsz=0x9000),
    load(b"", paddr=0x40000, vaddr=0xC0040000, memsz=0x2000, flags=6),
    load(b"the last page", paddr=0xFFFFF, vaddr=0xC00FFFFF),
    load(b"kernel", paddr=0x1000000, vaddr=0xD1000000),
)


def extents(elf: Elf) -> list[Extent]:
    """Where the PT_NOTEs lie."""
    return [Extent(int(each["offset"]), int(each["filesz"])) for each in elf.notes]


def image(content: bytes) -> Space:
    """The normalised image of a dump."""
    source = BytesSource(content)
    elf = Elf.open(source)
    return Space(source, normalised(elf, source.size, extents(elf)))


def whole(space: Space) -> bytes:
    """All its bytes."""
    return bytes(space.pread(0, space.size))


def page_up(size: int) -> int:
    """The next multiple of 4,096."""
    return size if size % 4096 == 0 else size - size % 4096 + 4096


def packed(*notes: Note) -> bytes:
    """A PT_NOTE's content, little endian."""
    return Dump([note(*notes)]).tobytes()[EHDR_SIZE[64] + PHDR_SIZE[64] :]


def kernels_layout(notes: Sequence[Note], loads: Sequence[Segment], bits: int, data: str) -> bytes:
    """Headers, one PT_NOTE, PT_LOADs; each begins on a page, and keeps its place in the page it has in memory."""
    at = page_up(EHDR_SIZE[bits] + (1 + len(loads)) * PHDR_SIZE[bits])
    merged = note(*notes, offset=at)
    at = page_up(at + len(packed(*notes)))
    placed = []
    for one in loads:
        within = one.paddr % 4096
        memsz = len(one.content) if one.memsz is None else one.memsz
        placed.append(load(one.content, paddr=one.paddr, vaddr=one.vaddr, flags=one.flags, memsz=memsz, offset=at + within))
        at = page_up(at + within + len(one.content))
    return Dump([merged, *placed], bits=bits, data=data, size=at).tobytes()


@shapes
def test_the_image_is_laid_out_as_the_kernel_does_whatever_the_dump_looks_like(bits: int, data: str) -> None:
    expected = kernels_layout(NOTES, LOADS, bits, data)
    segments = [note(*NOTES), *LOADS]
    for dump in (
        Dump(segments, bits=bits, data=data),
        Dump(segments, bits=bits, data=data, phoff=192, gap=7, trailing=b"trailing", header={"e_ehsize": 8}),
        Dump([*LOADS[:2], note(*NOTES[:1]), Segment(type=0x6474E551), *LOADS[2:], note(*NOTES[1:])], bits=bits, data=data),
        Dump(segments, bits=bits, data=data, header={"e_entry": 0x1234, "e_shnum": 2, "e_shstrndx": 1, "e_shentsize": 40}),
        Dump(segments, bits=bits, data=data, xnum=True),
    ):
        assert whole(image(dump.tobytes())) == expected


@shapes
def test_an_image_of_an_image_is_the_same(bits: int, data: str) -> None:
    once = whole(image(Dump([note(*NOTES), *LOADS], bits=bits, data=data, phoff=500).tobytes()))
    assert whole(image(once)) == once


@shapes
def test_e_machine_e_flags_and_e_version_are_the_dumps_own(bits: int, data: str) -> None:
    content = Dump(LOADS, bits=bits, data=data, machine=0x1516, header={"e_flags": 0x01020304}).tobytes()
    start = whole(image(content))[:64]
    flags_at = 48 if bits == 64 else 36
    assert start[16:24] == content[16:24]
    assert start[flags_at : flags_at + 4] == content[flags_at : flags_at + 4]


@given(dumps("paddr"))
def test_physical_memory_through_the_image_is_that_of_the_dump(dump: Painted) -> None:
    space = image(dump.content)
    physical = PhysicalSpace(space, Elf.open(space))
    for address in range(dump.low, dump.high):
        expected = dump.memory.get(address)
        if expected is not None:
            assert physical.pread(address, 1)[0] == expected
            continue
        with pytest.raises(FaultError) as caught:
            physical.pread(address, 1)
        assert address not in dump.memory or caught.value.kind == "excluded"


@given(dumps("paddr"), st.data())
def test_every_part_of_the_image_is_that_part_of_the_whole(dump: Painted, draw: st.DataObject) -> None:
    space = image(dump.content)
    content = whole(space)
    assert len(content) == space.size
    start = draw.draw(st.integers(0, space.size))
    stop = draw.draw(st.integers(start, space.size))
    assert space.pread(start, stop - start) == content[start:stop]


@shapes
@pytest.mark.parametrize("kept", [0, 1, 0x800, 0xFFF, 0x1000])
def test_what_a_truncated_dump_lost_faults_in_its_image_as_excluded(bits: int, data: str, kept: int) -> None:
    page = bytes(range(256)) * 16
    dump = Dump([note(*NOTES), load(page, paddr=0x5000), load(page, paddr=0x8000, memsz=0x1800)], bits=bits, data=data)
    content = dump.tobytes()[: kept - 0x1000 or None]
    space = image(content)
    elf = Elf.open(space)
    assert elf.loads["filesz"].tolist() == [0x1000, kept]
    assert elf.loads["memsz"].tolist() == [0x1000, 0x1800]
    physical = PhysicalSpace(space, elf)
    assert physical.pread(0x5000, 0x1000) == page
    assert physical.pread(0x8000, kept) == page[:kept]
    with pytest.raises(FaultError) as caught:
        physical.pread(0x8000, 0x1000 + 1)
    assert (caught.value.address, caught.value.kind) == (0x8000 + kept, "excluded")
    assert all(run.kind in (Kind.DATA, Kind.ZERO) for run in space.layout.walk(0, space.size))


def test_p_memsz_below_p_filesz_is_raised_to_it() -> None:
    space = image(Dump([load(b"page", paddr=0x1000, memsz=1)]).tobytes())
    elf = Elf.open(space)
    assert (elf.loads["filesz"].tolist(), elf.loads["memsz"].tolist()) == ([4], [4])
    assert bytes(PhysicalSpace(space, elf).pread(0x1000, 4)) == b"page"


def merged(content: bytes) -> bytes:
    """The content of the image's one PT_NOTE."""
    space = image(content)
    elf = Elf.open(space)
    (only,) = extents(elf)
    assert elf.segments["type"].tolist()[0] == 4
    assert only.offset % 4096 == 0
    return bytes(space.pread(*only))


def test_notes_of_many_pt_notes_are_one_and_in_order() -> None:
    notes = [("CORE", 1, bytes([n]) * (n % 9)) for n in range(200)]
    content = Dump([load(b"page"), *(note(one) for one in notes)]).tobytes()
    assert merged(content) == packed(*notes)


def test_a_note_that_its_writer_did_not_pad_does_not_shift_the_next() -> None:
    # The desc of 6 bytes is padded to 8 in the file; p_filesz leaves the padding out.
    first, second = note(NOTES[0], filesz=12 + 8 + 6), note(NOTES[1])
    assert merged(Dump([first, second, load(b"page")]).tobytes()) == packed(*NOTES)


@pytest.mark.parametrize("left", [0, 5, 27])
def test_notes_that_a_truncated_dump_lost_are_cut_short(left: int) -> None:
    content = Dump([load(b"page", paddr=0x1000), note(*NOTES)]).tobytes()
    lost = content.index(b"CORE") - 12 + left
    found = merged(content[:lost])
    assert found == content[lost - left : lost] + bytes(-left % 4)


@pytest.mark.parametrize("offset", [1 << 20, 1 << 63, (1 << 64) - 5000])
def test_a_pt_note_past_the_end_of_the_file_leaves_nothing(offset: int) -> None:
    assert merged(Dump([load(b"page"), note(offset=offset, filesz=4096)]).tobytes()) == b""


def test_without_notes_and_loads_there_is_an_empty_pt_note() -> None:
    space = image(Dump([Segment(type=0)]).tobytes())
    assert space.size == 4096
    assert Elf.open(space).segments["type"].tolist() == [4]
    assert merged(Dump([Segment(type=0)]).tobytes()) == b""


@shapes
@pytest.mark.parametrize("loads", [0xFFFD, 0xFFFE, 0xFFFF, 70_000])
def test_from_65_535_program_headers_on_the_count_is_in_section_header_0(bits: int, data: str, loads: int) -> None:
    dump = Dump([load(paddr=0x1000 * (n % 9), filesz=0, memsz=n) for n in range(loads)], bits=bits, data=data)
    space = image(dump.tobytes())
    order: Literal["little", "big"] = "little" if data == "LE" else "big"
    shoff_at, phnum_at, sh_info_at = (40, 56, 44) if bits == 64 else (32, 44, 28)
    head = bytes(space.pread(0, EHDR_SIZE[bits]))
    phnum = int.from_bytes(head[phnum_at : phnum_at + 2], order)
    shoff = int.from_bytes(head[shoff_at : shoff_at + bits // 8], order)
    if loads < 0xFFFE:
        assert (phnum, shoff) == (1 + loads, 0)
    else:
        assert (phnum, shoff) == (PN_XNUM, EHDR_SIZE[bits] + (1 + loads) * PHDR_SIZE[bits])
        section = bytes(space.pread(shoff, SHDR_SIZE[bits]))
        assert int.from_bytes(section[sh_info_at : sh_info_at + 4], order) == 1 + loads
        assert section.count(0) >= len(section) - 3
    elf = Elf.open(space)
    assert elf.loads["memsz"].tolist() == list(range(loads))
    assert elf.loads["paddr"].tolist() == [0x1000 * (n % 9) for n in range(loads)]


def bare(bits: int, *sizes: int) -> Elf:
    """A dump of PT_LOADs that are said to be that large."""
    return Elf.open(BytesSource(Dump([load(offset=0, filesz=size) for size in sizes], bits=bits).tobytes()))


def test_an_elf32_image_ends_before_its_offsets_do() -> None:
    # A page of headers, none of notes: the last page of 32 bits must stay free for the end itself to be said.
    fits, exceeds = 0xFFFFF000 - 4096, 0xFFFFF000 - 4095
    assert normalised(bare(32, fits), 1 << 33, ()).size == 0xFFFFF000
    assert normalised(bare(64, exceeds), 1 << 33, ()).size == 1 << 32
    with pytest.raises(BadDumpError, match="larger than its ELF class can say") as caught:
        normalised(bare(32, exceeds), 1 << 33, ())
    assert caught.value.term == "segments"
    with pytest.raises(BadDumpError):
        normalised(bare(32, 1 << 31, 1 << 31), 1 << 33, ())


def test_sizes_whose_sum_wraps_64_bits_are_refused_and_not_lied_about() -> None:
    size = 1 << 62  # a hole that tmpfs and XFS can hold
    assert normalised(bare(64, size, size, size), size, ()).size == 3 * size + 4096
    with pytest.raises(BadDumpError):
        normalised(bare(64, *[size] * 4), size, ())
    with pytest.raises(BadDumpError):
        normalised(bare(64, *[size] * 5), size, ())
    with pytest.raises(BadDumpError):
        normalised(bare(64, 1), size, [Extent(0, size)] * 5)


def crash_kernels() -> list[tuple[Host, Bits, int]]:
    """Every host, with each class and machine that it takes."""
    classes: tuple[Bits, ...] = (32, 64)
    return [(host, bits, machine) for host in HOSTS for bits in classes for machine in sorted(host.native(bits))]


@pytest.mark.parametrize(
    ("host", "bits", "machine"), [pytest.param(*each, id=f"{each[0].name}-{each[1]}-{each[2]}") for each in crash_kernels()]
)
def test_a_crash_kernel_of_the_dumps_own_host_takes_its_image(host: Host, bits: Bits, machine: int) -> None:
    as_qemu = Dump([note(*NOTES), load(b"ram")], bits=bits, data=host.data, machine=machine, phoff=192, header={"e_ehsize": 8})
    assert not arch.check(as_qemu.tobytes()[:64], host, arch.Policy()).kernel.accepted
    found = arch.check(bytes(image(as_qemu.tobytes()).pread(0, 64)), host, arch.Policy())
    assert [term.name for term in found.kernel.terms if not term.ok] == []
    assert (found.kernel.accepted, found.warnings) == (True, ())


@pytest.mark.parametrize("data", ["LE", "BE"])
def test_addresses_past_2_to_the_63_stay_what_they_are(data: Data) -> None:
    top = (1 << 64) - 0x1001
    space = image(Dump([load(b"high", paddr=1 << 63, vaddr=top), load(b"top", paddr=top, vaddr=1 << 63)], data=data).tobytes())
    elf = Elf.open(space)
    assert elf.loads["paddr"].tolist() == [1 << 63, top]
    assert elf.loads["vaddr"].tolist() == [top, 1 << 63]
    physical = PhysicalSpace(space, elf)
    assert [bytes(physical.pread(1 << 63, 4)), bytes(physical.pread(top, 3))] == [b"high", b"top"]
