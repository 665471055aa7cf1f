"""Elf.open against headers that tests/elfwriter.py packed with struct, sound and hostile."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.elf import EHDR_SIZE, MAX_PHNUM, PHDR_SIZE, Ehdr, Elf, pack_count, pack_segments
from farcore.errors import BadDumpError, FaultError, SourceChangedError
from farcore.file import FileSource
from farcore.source import BytesSource
from tests.elfwriter import Dump, Segment, load, note
from tests.faulty import Faulty

SHAPES = list(product((32, 64), ("LE", "BE")))
shapes = pytest.mark.parametrize(("bits", "data"), SHAPES)
SEGMENTS = (note(("CORE", 1, b"status")), load(b"kernel", paddr=0x1000, vaddr=0xC0001000), load(b"page", paddr=0x2000, memsz=9))


def opened(dump: Dump) -> Elf:
    """Elf.open on the dump's bytes."""
    return Elf.open(BytesSource(dump.tobytes()))


def refused(content: bytes) -> str:
    """The term that Elf.open refuses these bytes by."""
    with pytest.raises(BadDumpError) as caught:
        Elf.open(BytesSource(content))
    return caught.value.term


def one(**fields: int) -> Dump:
    """A dump of one PT_LOAD, with fields of its header replaced."""
    return Dump([load(b"page")], header=fields)


@shapes
def test_every_field_of_the_header_is_read_in_the_files_own_order(bits: int, data: str) -> None:
    words = {"e_entry": 0x01020304, "e_shoff": 0x05060708, "e_flags": 0x090A0B0C}
    halves = {"e_type": 0x1112, "e_ehsize": 8, "e_shentsize": 0x1314, "e_shnum": 0x1516, "e_shstrndx": 0x1718}
    dump = Dump(SEGMENTS, bits=bits, data=data, machine=0x191A, header={"EI_VERSION": 7, "e_version": 3, **words, **halves})
    header = opened(dump).header
    assert (header.bits, header.data, header.ident_version, header.version, header.machine) == (bits, data, 7, 3, 0x191A)
    assert (header.entry, header.shoff, header.flags) == (0x01020304, 0x05060708, 0x090A0B0C)
    assert (header.type, header.ehsize, header.shentsize, header.shnum, header.shstrndx) == (0x1112, 8, 0x1314, 0x1516, 0x1718)
    assert (header.phoff, header.phentsize, header.phnum) == (52 if bits == 32 else 64, 32 if bits == 32 else 56, 3)


@shapes
def test_every_field_of_a_program_header_is_read_at_its_full_width(bits: int, data: str) -> None:
    top = (1 << bits) - 1
    wanted = (0x70000001, 0x80000007, 0x11, top - 1, top - 2, 0x22, top, 0x1000)
    kind, flags, offset, vaddr, paddr, filesz, memsz, align = wanted
    segment = Segment(type=kind, flags=flags, offset=offset, vaddr=vaddr, paddr=paddr, filesz=filesz, memsz=memsz, align=align)
    elf = opened(Dump([segment], bits=bits, data=data))
    assert elf.segments.tolist() == [wanted]
    assert elf.segments.dtype.names == ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align")


@shapes
def test_loads_and_notes_are_told_apart_in_file_order(bits: int, data: str) -> None:
    segments = [load(paddr=3), note(offset=1), Segment(type=0x6474E551), load(paddr=1), note(offset=2), load(paddr=2)]
    elf = opened(Dump(segments, bits=bits, data=data))
    assert elf.loads["paddr"].tolist() == [3, 1, 2]
    assert elf.notes["offset"].tolist() == [1, 2]
    assert len(elf.segments) == 6


@shapes
def test_a_header_cut_at_any_byte_is_refused_and_a_whole_one_is_not(bits: int, data: str) -> None:
    content = Dump([load(), load()], bits=bits, data=data).tobytes()
    terms = [refused(content[:length]) for length in range(len(content))]
    assert terms[EHDR_SIZE[bits] :] == ["phnum"] * 2 * PHDR_SIZE[bits]
    assert set(terms[4 : EHDR_SIZE[bits]]) <= {"magic", "class"}
    assert len(Elf.open(BytesSource(content)).segments) == 2


@shapes
def test_section_header_0_cut_at_any_byte_of_its_count_is_refused(bits: int, data: str) -> None:
    dump = Dump([load()], bits=bits, data=data, xnum=True, phoff=EHDR_SIZE[bits], header={"e_shoff": 200}, size=200)
    at = 200 + (44 if bits == 64 else 28)
    count = (1).to_bytes(4, "little" if data == "LE" else "big")
    whole = dump.tobytes() + bytes(at - 200) + count
    assert [refused(whole[:length]) for length in range(200, at + 4)] == ["phnum"] * (at + 4 - 200)
    assert len(Elf.open(BytesSource(whole)).segments) == 1


@pytest.mark.parametrize("content", [b"", b"\0", b"\x7fEL", b"\x7fELf" + bytes(60), bytes(64), b"KDUMP   " + bytes(56)])
def test_what_is_no_elf_file_is_refused_by_its_magic(content: bytes) -> None:
    assert refused(content) == "magic"


@pytest.mark.parametrize("number", [0, 3, 255])
def test_a_class_that_is_neither_32_nor_64_is_refused(number: int) -> None:
    assert refused(one(EI_CLASS=number).tobytes()) == "class"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("wrong", [-1, +1])
def test_program_headers_of_another_size_are_refused(bits: int, wrong: int) -> None:
    assert refused(Dump([load(b"page")], bits=bits, header={"e_phentsize": PHDR_SIZE[bits] + wrong}).tobytes()) == "phentsize"


def test_a_file_without_program_headers_has_no_segments() -> None:
    elf = opened(one(e_phnum=0))
    assert (len(elf.segments), len(elf.loads), len(elf.notes)) == (0, 0, 0)


@shapes
@pytest.mark.parametrize("phoff", [65, 192, 4097, 99_999])
def test_program_headers_are_found_wherever_e_phoff_says(bits: int, data: str, phoff: int) -> None:
    found = opened(Dump(SEGMENTS, bits=bits, data=data, phoff=phoff)).segments
    assert found["paddr"].tolist() == [0, 0x1000, 0x2000]
    assert found["memsz"].tolist()[1:] == [6, 9]


def test_program_headers_may_reach_the_last_byte_and_no_further() -> None:
    tables = Dump([load()] * 3, phoff=1000)
    assert len(opened(tables).segments) == 3
    assert refused(tables.tobytes()[:-1]) == "phnum"
    assert refused(Dump([load()] * 3, phoff=1000, header={"e_phoff": 1001}).tobytes()) == "phnum"
    assert refused(Dump([load()] * 3, phoff=1000, header={"e_phnum": 4}).tobytes()) == "phnum"


@pytest.mark.parametrize("phoff", [1 << 63, (1 << 64) - 1, (1 << 64) - 56])
def test_an_e_phoff_whose_sum_wraps_64_bits_is_refused(phoff: int) -> None:
    assert refused(one(e_phoff=phoff, e_phnum=2).tobytes()) == "phnum"


@pytest.mark.parametrize(("offset", "filesz"), [(1, (1 << 64) - 2), ((1 << 64) - 1, 0), (0, (1 << 64) - 1)])
def test_a_segment_may_end_at_the_last_offset_that_64_bits_can_say(offset: int, filesz: int) -> None:
    assert opened(Dump([load(offset=offset, filesz=filesz)])).loads["filesz"].tolist() == [filesz]


@pytest.mark.parametrize(("offset", "filesz"), [(1, (1 << 64) - 1), (1 << 63, 1 << 63), ((1 << 64) - 1, 1)])
def test_a_segment_whose_end_wraps_64_bits_is_refused_by_its_number(offset: int, filesz: int) -> None:
    with pytest.raises(BadDumpError, match="program header 2") as caught:
        opened(Dump([load(), load(), load(offset=offset, filesz=filesz)]))
    assert caught.value.term == "segments"


@pytest.mark.parametrize("data", ["LE", "BE"])
def test_a_32_bit_segment_past_4_gib_does_not_wrap(data: str) -> None:
    elf = opened(Dump([load(offset=0xFFFFFFFF, filesz=0xFFFFFFFF)], bits=32, data=data))
    assert (elf.loads["offset"] + elf.loads["filesz"]).tolist() == [0x1FFFFFFFE]


@shapes
@pytest.mark.parametrize("count", [0xFFFE, 0xFFFF, 70_000])
def test_as_many_program_headers_as_there_are_are_read(bits: int, data: str, count: int) -> None:
    segments = [load(paddr=7 * n, vaddr=11 * n, offset=13 * n, filesz=n, memsz=n + 1) for n in range(count)]
    loads = opened(Dump(segments, bits=bits, data=data)).loads
    assert len(loads) == count
    assert loads["paddr"].tolist() == list(range(0, 7 * count, 7))
    assert loads["vaddr"].tolist() == list(range(0, 11 * count, 11))
    assert loads["offset"].tolist() == list(range(0, 13 * count, 13))
    assert loads["memsz"].tolist() == list(range(1, count + 1))


@shapes
def test_under_pn_xnum_the_count_is_section_header_0s_however_small(bits: int, data: str) -> None:
    assert len(opened(Dump(SEGMENTS, bits=bits, data=data, xnum=True)).segments) == 3
    assert len(opened(Dump(SEGMENTS, bits=bits, data=data, xnum=True, sh_info=2)).segments) == 2


@shapes
@pytest.mark.parametrize("count", [4, MAX_PHNUM, 0xFFFFFFFF])
def test_a_count_in_section_header_0_that_does_not_fit_the_file_is_refused(bits: int, data: str, count: int) -> None:
    assert refused(Dump([load()] * 3, bits=bits, data=data, xnum=True, sh_info=count).tobytes()) == "phnum"


@pytest.mark.parametrize("shoff", [1 << 20, (1 << 64) - 44, (1 << 64) - 1])
def test_pn_xnum_with_section_header_0_past_the_end_is_refused(shoff: int) -> None:
    assert refused(one(e_phnum=0xFFFF, e_shoff=shoff).tobytes()) == "phnum"


def test_without_a_section_header_0xffff_program_headers_are_just_that_many() -> None:
    assert len(opened(Dump([load()] * 0xFFFF, xnum=False)).segments) == 0xFFFF


@pytest.mark.parametrize(("count", "fits"), [(MAX_PHNUM, True), (MAX_PHNUM + 1, False)])
def test_program_headers_are_read_up_to_their_limit(tmp_path: Path, count: int, fits: bool) -> None:
    dump = Dump([load()], bits=32, xnum=True, sh_info=count, size=52 + 40 + 32 * count)
    fd = os.open(dump.write(tmp_path / "vmcore"), os.O_RDONLY)
    source = Faulty(FileSource(fd, os.fstat(fd).st_size))
    if fits:
        assert len(Elf.open(source).segments) == count
    else:
        with pytest.raises(BadDumpError, match=f"{count:,} program headers"):
            Elf.open(source)
        assert sum(length for _, length in source.asked) < 1000


def test_opening_reads_the_headers_and_nothing_else(tmp_path: Path) -> None:
    segments = [note(("CORE", 1, bytes(400))), load(b"first"), load(b"last", offset=4 << 40, paddr=4 << 40)]
    fd = os.open(Dump(segments).write(tmp_path / "vmcore"), os.O_RDONLY)
    source = Faulty(FileSource(fd, os.fstat(fd).st_size))
    assert Elf.open(source).loads["offset"].tolist()[1] == 4 << 40
    assert max(offset + length for offset, length in source.asked) == 64 + 3 * 56
    assert sum(length for _, length in source.asked) <= 64 + 3 * 56


def test_program_headers_that_the_disk_does_not_give_are_its_fault_and_no_bad_dump() -> None:
    with pytest.raises(FaultError) as caught:
        Elf.open(Faulty(BytesSource(Dump(SEGMENTS).tobytes()), at={100: "unreadable"}))
    assert caught.value.kind == "unreadable"


def test_a_file_that_changes_while_it_is_opened_is_said_to_have_changed() -> None:
    with pytest.raises(SourceChangedError):
        Elf.open(Faulty(BytesSource(Dump(SEGMENTS).tobytes()), calls={2: "changed"}))


def test_segments_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        opened(Dump(SEGMENTS)).segments["paddr"] = 0


@shapes
def test_what_was_read_packs_into_the_bytes_it_was_read_from(bits: int, data: str) -> None:
    content = Dump(SEGMENTS, bits=bits, data=data, xnum=True).tobytes()
    elf = Elf.open(BytesSource(content))
    start = EHDR_SIZE[bits]
    assert pack_count(3, elf.header) == content[start : elf.header.phoff]
    assert pack_segments(elf.segments, elf.header) == content[elf.header.phoff : elf.header.phoff + 3 * PHDR_SIZE[bits]]


@given(st.sampled_from(SHAPES), st.data())
def test_any_bytes_give_an_elf_that_fits_the_file_or_a_bad_dump(shape: tuple[int, str], draw: st.DataObject) -> None:
    content = bytearray(Dump(SEGMENTS, bits=shape[0], data=shape[1], xnum=draw.draw(st.booleans())).tobytes())
    changes = st.dictionaries(st.integers(0, len(content) - 1), st.integers(0, 255), max_size=12)
    for at, byte in draw.draw(changes).items():
        content[at] = byte
    cut = bytes(content[: draw.draw(st.integers(0, len(content)))])
    source = Faulty(BytesSource(cut))
    try:
        elf = Elf.open(source)
    except BadDumpError:
        pass
    else:
        assert len(elf.segments) * PHDR_SIZE[elf.header.bits] <= len(cut)
        assert len(elf.loads) + len(elf.notes) <= len(elf.segments)
    assert sum(length for _, length in source.asked) <= 64 + 4 + len(cut)


@pytest.mark.parametrize("data", ["LE", "BE"])
def test_a_header_can_be_read_in_the_other_byte_order_as_a_kernel_would(data: str) -> None:
    other = "BE" if data == "LE" else "LE"
    raw = Dump(SEGMENTS, data=data, machine=62).tobytes()[:64]
    header = Ehdr.parse(raw, "BE" if data == "LE" else "LE")
    assert (header.data, header.type, header.machine, header.phentsize) == (other, 0x0400, 0x3E00, 0x3800)
