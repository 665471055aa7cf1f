"""VMCOREINFO: written as the kernel's printf formats write it; the last test gives any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.notes import Note
from farcore.vmcoreinfo import MAX_SIZE, Vmcoreinfo, of_linux, of_xen, parse

# Lines of a real one (Debian's 6.1 amd64, KASLR on).
KDUMP = b"""\
OSRELEASE=6.1.0-50-cloud-amd64
BUILD-ID=3b43fad5034874490492495d552c0af6a5fab235
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffffaa631140
OFFSET(uts_namespace.name)=0
SIZE(page)=64
OFFSET(page.flags)=0
OFFSET(page.lru)=8
LENGTH(mem_section)=2048
NUMBER(phys_base)=-559939584
NUMBER(pgtable_l5_enabled)=0
NUMBER(kimage_voffset)=0xffffb3bfc8000000
KERNELOFFSET=28000000
CRASHTIME=1795416684
"""


def info(**values: str) -> Vmcoreinfo:
    return Vmcoreinfo(values)


def with_key(key: str, value: str) -> Vmcoreinfo:
    return Vmcoreinfo({key: value})


def test_a_real_note_answers_every_lookup() -> None:
    found = Vmcoreinfo(parse(KDUMP))
    assert found.kernel_release == "6.1.0-50-cloud-amd64"
    assert found.build_id == "3b43fad5034874490492495d552c0af6a5fab235"
    assert found.crash_time == 1795416684
    assert found.page_size == 4096
    assert found.kernel_offset == 0x28000000
    assert found.phys_base == -559939584
    assert found.symbol("init_uts_ns") == 0xFFFFFFFFAA631140
    assert found.number("pgtable_l5_enabled") == 0
    assert found.number("kimage_voffset") == 0xFFFFB3BFC8000000
    assert found.type_size("page") == 64
    assert found.member_offset("page.lru") == 8
    assert found.length("mem_section") == 2048


def test_what_is_absent_is_none() -> None:
    empty = Vmcoreinfo({})
    fixed = (empty.kernel_release, empty.build_id, empty.crash_time, empty.page_size, empty.kernel_offset, empty.phys_base)
    assert fixed == (None,) * 6
    named = (empty.symbol("x"), empty.number("x"), empty.type_size("x"), empty.member_offset("x"), empty.length("x"))
    assert named == (None,) * 5


@pytest.mark.parametrize(
    ("desc", "values"),
    [
        (b"", {}),
        (b"A=1\nB=2", {"A": "1", "B": "2"}),
        (b"A=b=c\nNOTHING\n=v\n\nE=\n", {"A": "b=c", "E": ""}),
        (b"A=1\n\0B=2\n", {"A": "1"}),
        (b"A=1\0 trailing", {"A": "1"}),
        (b"A=1\nA=2\n", {"A": "1"}),
        (b"A=\x1b[2J\r\nB\xff=\x80\\\n", {"A": r"\x1b[2J\r", r"B\xff": r"\x80\\"}),
    ],
)
def test_lines_are_read_up_to_the_first_nul_the_first_of_a_key_counts_and_nothing_unprintable_stays(
    desc: bytes, values: dict[str, str]
) -> None:
    assert parse(desc) == values
    assert parse(memoryview(desc)) == values


def test_no_more_than_the_limit_is_parsed() -> None:
    filler = b"F=" + b"x" * (MAX_SIZE - 7) + b"\n"
    assert list(parse(filler + b"LAST")) == ["F"]
    assert parse(filler + b"A=12")["A"] == "12"
    assert parse(filler + b"A=123")["A"] == "12"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-1", -1),
        ("10", 10),
        ("0x10", 16),
        ("0XfF", 255),
        ("ff", 255),
        ("18446744073709551615", 2**64 - 1),
        ("0xffffffffffffffff", 2**64 - 1),
        ("", None),
        ("-", None),
        ("0x", None),
        (" 1", None),
        ("+1", None),
        ("1_0", None),
        ("1.0", None),
        ("0o7", None),
        ("9" * 21, None),
        ("9" * 5000, None),
        ("0x" + "f" * 17, None),
    ],
)
def test_numbers_are_decimal_else_hexadecimal_and_anything_else_is_none(text: str, number: int | None) -> None:
    assert with_key("NUMBER(x)", text).number("x") == number


@pytest.mark.parametrize(("text", "address"), [("10", 16), ("0x10", 16), ("ffffffff81000000", 0xFFFFFFFF81000000), ("g", None)])
def test_symbols_and_kernel_offset_are_hexadecimal(text: str, address: int | None) -> None:
    assert with_key("SYMBOL(x)", text).symbol("x") == address
    assert info(KERNELOFFSET=text).kernel_offset == address


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("65536", 65536), ("0", None), ("-4096", None), ("4097", None), ("page", None)]
)
def test_a_page_size_is_a_power_of_two(text: str, size: int | None) -> None:
    assert info(PAGESIZE=text).page_size == size


@pytest.mark.parametrize(("text", "seconds"), [("1", 1), ("0", None), ("-1", None), ("now", None)])
def test_a_crash_time_is_after_1970(text: str, seconds: int | None) -> None:
    assert info(CRASHTIME=text).crash_time == seconds


@pytest.mark.parametrize(
    ("release", "safe"),
    [
        ("5.10.0-8-amd64+deb11~1_x:y", True),
        ("6" + "x" * 63, True),
        ("6" + "x" * 64, False),
        ("../../etc/shadow", False),
        ("6.1/../../etc", False),
        ("6.1 evil", False),
        (".", False),
        ("", False),
    ],
)
def test_a_kernel_release_is_one_name_in_a_directory_or_none(release: str, safe: bool) -> None:
    assert info(OSRELEASE=release).kernel_release == (release if safe else None)


@pytest.mark.parametrize(
    ("build_id", "sound"),
    [("ab" * 20, True), ("ab" * 8, True), ("ab" * 21, False), ("abc", False), ("AB" * 20, False), ("../x", False), ("", False)],
)
def test_a_build_id_is_up_to_20_bytes_of_lower_case_hex(build_id: str, sound: bool) -> None:
    assert with_key("BUILD-ID", build_id).build_id == (build_id if sound else None)


@pytest.mark.parametrize(
    ("release", "sound"),
    [
        ("5.15.167", True),
        ("5.15.168", False),
        ("5.16.0", True),
        ("6.1.112-rt", True),
        ("6.1.113-rt", False),
        ("6.1.118", False),
        ("6.1.119", True),
        ("6.6.54", True),
        ("6.6.55", False),
        ("6.6.62", False),
        ("6.6.63", True),
        ("6.10.13", True),
        ("6.10.14", False),
        ("6.11.0", True),
        ("6.11-rc7", True),
        ("6.11.3", False),
        ("6.11.9+", False),
        ("6.11.10", True),
        ("9" * 5000, True),
    ],
)
def test_the_build_id_of_a_stable_release_known_to_write_garbage_is_none(release: str, sound: bool) -> None:
    values = {"BUILD-ID": "ab" * 20, "OSRELEASE": release}
    assert Vmcoreinfo(values).build_id == ("ab" * 20 if sound else None)


def test_linux_and_xen_are_two_and_the_last_note_counts() -> None:
    notes = [
        Note("VMCOREINFO", 0, b"OSRELEASE=1.0\n"),
        Note("VMCOREINFO_XEN", 0, b"PAGESIZE=4096\n"),
        Note("CORE", 1, b"OSRELEASE=3.0\n"),
        Note("VMCOREINFO", 0, b"OSRELEASE=2.0\n"),
    ]
    assert of_linux(notes) == Vmcoreinfo({"OSRELEASE": "2.0"})
    assert of_xen(notes) == Vmcoreinfo({"PAGESIZE": "4096"})
    assert of_linux(notes[1:3]) is None
    assert of_xen(notes[2:]) is None


KEYS = ["OSRELEASE", "BUILD-ID", "PAGESIZE", "CRASHTIME", "KERNELOFFSET", "NUMBER(phys_base)", "SYMBOL(x)", "SIZE(x)"]
lines = st.builds(lambda key, value: key.encode() + b"=" + value, st.sampled_from(KEYS), st.binary(max_size=40))


@given(st.one_of(st.binary(), st.lists(lines).map(b"\n".join)))
def test_any_bytes_give_printable_pairs_and_lookups_that_never_fail(desc: bytes) -> None:
    values = parse(desc)
    assert all(" " <= letter <= "~" for text in (*values, *values.values()) for letter in text)
    found = Vmcoreinfo(values)
    for name in ("kernel_release", "build_id", "crash_time", "page_size", "kernel_offset", "phys_base"):
        assert isinstance(getattr(found, name), (str, int, type(None)))
    assert isinstance(found.symbol("x"), (int, type(None)))
    assert isinstance(found.type_size("x"), (int, type(None)))
