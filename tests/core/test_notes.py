"""Notes. The oracle is the triples that tests.elfwriter packed, and readelf for the names of types."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.elf import SEGMENT, Data, Elf
from farcore.errors import SourceChangedError
from farcore.file import FileSource
from farcore.notes import MAX_BYTES, MAX_DESC, MAX_NAME, MAX_NOTES, MAX_WARNINGS, Note, Notes, printable, read, type_name
from farcore.source import BytesSource
from tests.elfwriter import Dump, Segment, load, note
from tests.faulty import Faulty
from tests.requires import requires

PT_NOTE = 4
PRSTATUS = ("CORE", 1, bytes(range(200)) + bytes(136))
INFO = ("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")
AT = 0x1000


def read_dump(dump: Dump) -> Notes:
    source = BytesSource(dump.tobytes())
    return read(source, Elf.open(source))


def read_one(content: bytes, *, filesz: int | None = None) -> Notes:
    """The notes of one PT_NOTE with this content, at byte AT, the last bytes of its file."""
    return read_dump(Dump([Segment(type=PT_NOTE, content=content, offset=AT, filesz=filesz)]))


def pack(*triples: tuple[str, int, bytes]) -> bytes:
    return Dump([note(*triples)]).tobytes()[64 + 56 :]


def header(namesz: int, descsz: int, kind: int = 1) -> bytes:
    return struct.pack("<3I", namesz, descsz, kind)


def triples(found: Notes) -> list[tuple[str, int, bytes]]:
    return [(one.name, one.type, one.desc) for one in found.notes]


def asked(source: Faulty) -> int:
    return sum(extent.length for extent in source.asked)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("data", ["LE", "BE"])
def test_notes_of_all_pt_notes_come_in_file_order(bits: int, data: str) -> None:
    odd = ("QEMU", 0x12345678, b"\x01\x02\x03")
    found = read_dump(Dump([note(PRSTATUS, odd), load(b"page"), note(INFO)], bits=bits, data=data))
    assert triples(found) == [PRSTATUS, odd, INFO]
    assert found.warnings == ()
    assert [one.size for one in found.notes] == [336, 3, 16]
    assert [one.is_prstatus for one in found.notes] == [True, False, False]


def test_notes_are_padded_to_4_bytes_whatever_p_align_says() -> None:
    content = pack(("abc", 1, b"12345"), INFO)
    assert triples(read_dump(Dump([Segment(type=PT_NOTE, content=content, align=8)]))) == [("abc", 1, b"12345"), INFO]


def test_only_type_1_of_core_is_a_prstatus() -> None:
    assert not Note("LINUX", 1, b"").is_prstatus
    assert not Note("CORE", 3, b"").is_prstatus


def test_an_empty_name_ends_its_pt_note_but_not_the_next() -> None:
    zeroed = Segment(type=PT_NOTE, content=pack(PRSTATUS) + bytes(12) + pack(("LOST", 1, b"")))
    found = read_dump(Dump([zeroed, note(INFO)]))
    assert triples(found) == [PRSTATUS, INFO]
    assert found.warnings == ()
    assert [length for _, length in found.extents] == [len(pack(PRSTATUS)), len(pack(INFO))]


def test_64_mib_of_zero_notes_cost_one_read_of_64_kib(tmp_path: Path) -> None:
    path = Dump([Segment(type=PT_NOTE, offset=AT, filesz=64 << 20)], size=AT + (64 << 20)).write(tmp_path / "core")
    source = Faulty(FileSource(os.open(path, os.O_RDONLY), path.stat().st_size))
    elf = Elf.open(source)
    source.asked.clear()
    assert read(source, elf) == Notes((), ())
    assert asked(source) <= 64 << 10


def test_a_pt_note_may_end_without_padding_or_with_less_than_a_header() -> None:
    assert triples(read_one(pack(INFO, ("QEMU", 0, b"abc"))[:-1])) == [INFO, ("QEMU", 0, b"abc")]
    found = read_one(pack(INFO) + b"\x05" + bytes(10))
    assert triples(found) == [INFO]
    assert found.warnings == ()


@pytest.mark.parametrize(
    "liar",
    [
        header(5, 0xFFFFFFFF) + b"CORE\0\0\0\0",
        header(5, 17) + b"CORE\0\0\0\0" + bytes(16),
        header(0xFFFFFFFF, 0) + bytes(64),
        header(0xFFFFFFFF, 0xFFFFFFFF) + bytes(64),
    ],
)
def test_a_note_that_runs_past_its_pt_note_is_a_warning_and_the_others_stay(liar: bytes) -> None:
    found = read_dump(Dump([Segment(type=PT_NOTE, content=pack(PRSTATUS) + liar, offset=AT), note(INFO, offset=2 * AT)]))
    assert triples(found) == [PRSTATUS, INFO]
    assert len(found.warnings) == 1
    assert f"byte {AT + len(pack(PRSTATUS)):,}" in found.warnings[0]
    assert "runs past its PT_NOTE" in found.warnings[0]


def test_a_name_longer_than_the_limit_is_no_note() -> None:
    longest = ("x" * (MAX_NAME - 1), 1, b"desc")
    assert triples(read_one(pack(longest, INFO))) == [longest, INFO]
    found = read_one(pack(INFO, ("x" * MAX_NAME, 1, b"desc"), PRSTATUS))
    assert triples(found) == [INFO]
    assert len(found.warnings) == 1
    assert "a name of 257 bytes" in found.warnings[0]


@pytest.mark.parametrize("cut", [1, 100, 336, 337])
def test_a_file_that_ends_inside_a_pt_note_keeps_the_notes_before_its_end(cut: int) -> None:
    whole = pack(INFO, PRSTATUS)
    found = read_one(whole[:-cut], filesz=len(whole))
    assert triples(found) == [INFO]
    assert found.warnings == (
        f"{cut} of the {len(whole)} bytes of the PT_NOTE at byte 4,096 are past the end of the file; "
        "the notes before that were kept",
    )


def test_a_pt_note_past_the_end_of_the_file_is_a_warning_unless_it_is_empty() -> None:
    found = read_dump(Dump([note(offset=1 << 62, filesz=100), note(INFO)]))
    assert triples(found) == [INFO]
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("100 of the 100 bytes of the PT_NOTE at byte 4,611,686,018,427,387,904")
    assert read_dump(Dump([note(offset=1 << 62, filesz=0)])) == Notes((), ())


def test_a_long_desc_is_kept_up_to_the_limit_and_the_walk_goes_on_behind_it() -> None:
    kept = bytes(range(256)) * (MAX_DESC // 256)
    assert triples(read_one(pack(("X", 7, kept), INFO))) == [("X", 7, kept), INFO]
    found = read_one(pack(("X", 7, kept + b"!"), INFO))
    assert triples(found) == [("X", 7, kept), INFO]
    assert [one.unread for one in found.notes] == [1, 0]
    assert found.notes[0].size == MAX_DESC + 1


def test_a_device_dump_of_300_mib_before_the_cpus_is_stepped_over_unread(tmp_path: Path) -> None:
    device, rest = header(6, 300 << 20, 0x700) + b"LINUX\0\0\0", pack(PRSTATUS, INFO)
    behind = AT + len(device) + (300 << 20)
    everything = Segment(type=PT_NOTE, content=device, offset=AT, filesz=behind - AT + len(rest))
    path = Dump([everything, load(rest, offset=behind)]).write(tmp_path / "core")
    source = Faulty(FileSource(os.open(path, os.O_RDONLY), path.stat().st_size))
    found = read(source, Elf.open(source))
    assert [one.size for one in found.notes] == [300 << 20, 336, 16]
    assert triples(found)[1:] == [PRSTATUS, INFO]
    assert asked(source) < 1 << 20


def test_more_notes_than_the_limit_are_a_warning_and_the_first_are_kept() -> None:
    tiny = pack(("a", 9, b""))
    found = read_one(tiny * MAX_NOTES)
    assert (found.notes, found.warnings) == ((Note("a", 9, b""),) * MAX_NOTES, ())
    found = read_one(tiny * (MAX_NOTES + 1))
    assert len(found.notes) == MAX_NOTES
    assert found.warnings == ("there are more than 65,536 notes; the notes before that were kept",)


@pytest.mark.parametrize("more", [0, 1])
def test_no_more_than_the_limit_is_read_of_any_file(more: int) -> None:
    one = pack(("CORE", 1, bytes((64 << 10) - 20)))
    count = MAX_BYTES // len(one)
    source = Faulty(BytesSource(Dump([Segment(type=PT_NOTE, content=one * (count + more))] * 2).tobytes()))
    elf = Elf.open(source)
    source.asked.clear()
    found = read(source, Elf(elf.header, elf.segments[: 1 + more]))
    assert len(found.notes) == count
    assert asked(source) == MAX_BYTES
    said = ("the notes need more than 16,777,216 bytes read; the notes before that were kept",)
    assert found.warnings == said[:more]


def test_the_last_bytes_of_the_limit_still_bring_notes() -> None:
    big, small = ("CORE", 1, bytes((64 << 10) - 20)), ("CORE", 1, bytes(1 << 10))
    found = read_dump(Dump([note(small), note(*[big] * (MAX_BYTES // (64 << 10) - 1), small, small, big)]))
    assert triples(found)[-3:] == [big, small, small]
    assert len(found.warnings) == 1


def test_nothing_behind_a_pt_note_is_read() -> None:
    source = Faulty(BytesSource(Dump([note(PRSTATUS), note(INFO)], trailing=bytes(1 << 20)).tobytes()))
    elf = Elf.open(source)
    source.asked.clear()
    assert triples(read(source, elf)) == [PRSTATUS, INFO]
    assert asked(source) == len(pack(PRSTATUS, INFO))


def test_pt_notes_beyond_the_limit_are_counted_not_read() -> None:
    source = BytesSource(Dump([note(INFO)], trailing=bytes(12)).tobytes())
    elf = Elf.open(source)
    empty = np.zeros(MAX_NOTES, SEGMENT)
    empty["type"], empty["offset"], empty["filesz"] = PT_NOTE, source.size - 12, 12
    found = read(source, Elf(elf.header, np.concatenate([empty[1:], elf.segments])))
    assert (triples(found), found.warnings) == ([INFO], ())
    found = read(source, Elf(elf.header, np.concatenate([empty, elf.segments])))
    assert found == Notes((), ("only the first 65,536 of 65,537 PT_NOTEs were read",))


def test_many_broken_pt_notes_give_a_few_sentences_and_a_count() -> None:
    broken = Segment(type=PT_NOTE, content=header(5, 1 << 30))
    assert len(read_dump(Dump([broken] * MAX_WARNINGS)).warnings) == MAX_WARNINGS
    warnings = read_dump(Dump([broken] * (MAX_WARNINGS + 3))).warnings
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "3 more PT_NOTEs could not be read to their end"


def test_a_bad_sector_costs_only_the_notes_from_there_on() -> None:
    below = BytesSource(Dump([note(PRSTATUS, INFO, offset=AT)]).tobytes())
    source = Faulty(below, at={AT + len(pack(PRSTATUS)) + 20: "unreadable"})
    found = read(source, Elf.open(below))
    assert triples(found) == [PRSTATUS]
    assert len(found.warnings) == 1
    assert "unreadable" in found.warnings[0]


def test_a_source_that_changed_is_the_callers_to_handle() -> None:
    below = BytesSource(Dump([note(INFO)]).tobytes())
    with pytest.raises(SourceChangedError):
        read(Faulty(below, calls={1: "changed"}), Elf.open(below))


def test_names_end_at_their_nul_and_cannot_steer_a_terminal() -> None:
    name = b"\x1b[2J\xff\\\n\0CORE"
    assert read_one(header(len(name), 0) + name).notes[0].name == r"\x1b[2J\xff\\\n"
    plain = "".join(chr(code) for code in range(32, 127) if chr(code) != "\\")
    assert printable(plain.encode()) == plain
    assert all(" " <= letter <= "~" for letter in printable(bytes(range(256))))


names = st.from_regex(r"[A-Z]{1,20}", fullmatch=True)


@given(st.lists(st.tuples(names, st.integers(0, 2**32 - 1), st.binary())), st.sampled_from([32, 64]))
def test_what_was_packed_is_what_is_read(notes: list[tuple[str, int, bytes]], bits: int) -> None:
    found = read_dump(Dump([note(*notes)], bits=bits))
    assert triples(found) == notes
    assert found.warnings == ()


@given(st.binary(max_size=400), st.integers(0, 1 << 40), st.sampled_from(["LE", "BE"]))
def test_any_bytes_give_notes_and_warnings_and_nothing_else(content: bytes, filesz: int, data: Data) -> None:
    found = read_dump(Dump([Segment(type=PT_NOTE, content=content, filesz=filesz)], data=data))
    assert sum(one.size + 12 for one in found.notes) <= len(content)


# What readelf 2.40 has a name for in a core file, of what a kernel or QEMU writes.
NUMBERS = [1, 2, 3, 4, 6, 0x100, 0x102, *range(0x200, 0x203), *range(0x300, 0x30D), *range(0x400, 0x407), 0x900]


@requires("readelf")
def test_names_of_types_are_those_of_readelf(tmp_path: Path) -> None:
    notes = [(owner, number, bytes(8)) for owner in ("CORE", "LINUX") for number in NUMBERS]
    path = Dump([note(*notes)]).write(tmp_path / "core")
    shown = subprocess.run(["readelf", "-nW", path], check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^  (\w+)\s+0x([0-9a-f]{8})\s+(\w+)", shown, re.MULTILINE)
    assert rows == [(owner, "00000008", type_name(Note(owner, number, desc))) for owner, number, desc in notes]


def test_notes_without_a_named_type_are_said_in_words_or_by_number() -> None:
    said = {
        ("VMCOREINFO", 0): "Linux vmcoreinfo",
        ("VMCOREINFO_XEN", 0): "Xen vmcoreinfo",
        ("QEMU", 0): "QEMU CPU state",
        ("ERASEINFO", 0): "makedumpfile eraseinfo",
        ("Xen", 0x1000001): "XEN_ELFNOTE_CRASH_INFO",
        ("Xen", 0x1000002): "XEN_ELFNOTE_CRASH_REGS",
        ("LINUX", 0x700): "NT_VMCOREDD",
        ("CORE", 0x101): "NT_PPC_SPE",
        ("CORE", 0x7777): "0x7777",
        ("Xen", 1): "0x1",
        ("GNU", 1): "0x1",
    }
    assert {(name, kind): type_name(Note(name, kind, b"")) for name, kind in said} == said
