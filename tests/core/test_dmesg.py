"""The kernel log: what tests/logwriter.py wrote, and what is in the real dumps; tests/tools asks the tools."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore import dmesg, notes, vmcoreinfo
from farcore.elf import Elf
from farcore.errors import NoLogError
from farcore.file import FileSource
from farcore.kernelspace import KernelSpace
from farcore.logmemory import Record
from farcore.source import BytesSource, Source
from farcore.space import PhysicalSpace
from farcore.vmcoreinfo import Vmcoreinfo
from tests import logwriter
from tests.logwriter import COMMITTED, REUSABLE, Line, Memory

FORMS = [(8, "<"), (4, "<"), (8, ">"), (4, ">")]
FEW = [Line(0, b"Linux version 6.1"), Line(1_234_567_890, b"hello"), Line(2_000_000_999, b"two\nlines"), Line(3, b"")]
# More text than the ring has, so that blocks wrap and old messages are gone.
MANY = [Line(n * 1_000_000, b"message %d " % n + b"x" * (n * 7 % 40)) for n in range(60)]


def log_of(source: Source) -> dmesg.Log:
    """The log of a whole vmcore."""
    elf = Elf.open(source)
    known = vmcoreinfo.of_linux(notes.read(source, elf).notes)
    assert known is not None
    space = KernelSpace(PhysicalSpace(source, elf), elf.header, known, elf)
    word = 4 if elf.header.bits == 32 else 8
    return dmesg.read(space, known, word=word, data=elf.header.data)


def written(memory: Memory) -> list[tuple[int | None, bytes]]:
    """What is read of it."""
    return [(stamp, text) for stamp, text in log_of(BytesSource(memory.dump().tobytes())).records]


@pytest.mark.parametrize(("word", "order"), FORMS)
def test_the_messages_of_a_ring_come_oldest_first(word: int, order: str) -> None:
    assert written(logwriter.ring(FEW, word=word, order=order)) == [line[:2] for line in FEW]


@pytest.mark.parametrize(("word", "order"), FORMS)
def test_a_ring_that_went_round_has_its_newest_messages(word: int, order: str) -> None:
    top = (1 << (8 * word - 2)) - 20  # the ids themselves wrap as well
    memory = logwriter.ring(MANY, word=word, order=order, size_bits=12, first_id=top, first_lpos=(1 << 8 * word) - (1 << 12))
    assert written(memory) == [line[:2] for line in MANY[-16:]]


def test_a_block_that_crosses_the_end_of_the_ring_is_read_from_its_start() -> None:
    lines = [Line(n, bytes([65 + n]) * 20) for n in range(12)]
    assert written(logwriter.ring(lines, size_bits=9, first_lpos=256))[-5:] == [line[:2] for line in lines[-5:]]


def test_what_was_being_written_is_left_out_and_what_was_committed_is_not() -> None:
    lines = [
        Line(1, b"final"),
        Line(2, b"committed", COMMITTED),
        Line(3, b"half", 0),
        Line(4, b"gone", REUSABLE),
        Line(5, b"end"),
    ]
    assert [text for _, text in written(logwriter.ring(lines))] == [b"final", b"committed", b"end"]


@pytest.mark.parametrize(("word", "order"), FORMS)
@pytest.mark.parametrize("name", ["printk_log", "log"])
def test_records_in_log_buf_are_read_also_after_it_has_wrapped(word: int, order: str, name: str) -> None:
    assert written(logwriter.records(FEW, word=word, order=order, name=name)) == [line[:2] for line in FEW]
    found = written(logwriter.records(MANY, word=word, order=order, name=name))
    assert len(found) > 5
    assert found == [line[:2] for line in MANY[-len(found) :]]


@pytest.mark.parametrize(("word", "order"), FORMS)
def test_plain_text_is_read_without_its_levels(word: int, order: str) -> None:
    text = b"".join(b"<%d>[%5d.000000] line %d\n" % (n % 8, n, n) for n in range(40))
    found = log_of(BytesSource(logwriter.plain(text[:200], word=word, order=order).dump().tobytes()))
    assert found.text().splitlines()[:2] == ["[    0.000000] line 0", "[    1.000000] line 1"]
    found = log_of(BytesSource(logwriter.plain(text, word=word, order=order).dump().tobytes()))
    assert found.text().splitlines()[-1] == "[   39.000000] line 39"


def test_a_log_is_text_that_steers_no_terminal() -> None:
    lines = [Line(5_000_001_000, b"\x1b[2J\r\xc3\xa9\ttab\n\x00second"), Line(123456_000000_000, b"late")]
    assert log_of(BytesSource(logwriter.ring(lines).dump().tobytes())).text() == (
        "[    5.000001] \\x1b[2J\\x0d\\xc3\\xa9\ttab\n               \\x00second\n[123456.000000] late\n"
    )


def test_an_empty_kernel_log_is_an_empty_text() -> None:
    assert written(logwriter.records([])) == []
    assert log_of(BytesSource(logwriter.ring([Line(0, b"", REUSABLE)]).dump().tobytes())).text() == ""


@pytest.mark.parametrize(
    ("name", "count", "marker"),
    [
        ("x86_64-panic.elf", 376, "[    2.333344] vmcore-marker: hello from 6.1.0-56-cloud-amd64"),
        ("aarch64-panic.elf", 256, "[    1.609639] vmcore-marker: hello from 6.1.0-56-cloud-arm64"),
        ("i386-panic.elf", 382, "[    3.379821] vmcore-marker: hello from 6.1.0-50-686-pae"),
    ],
)
def test_the_log_of_a_real_dump_has_its_lines(sample: Callable[[str], Path], name: str, count: int, marker: str) -> None:
    path = sample(name)
    source = FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)
    lines = log_of(source).text().splitlines()
    assert len(lines) == count
    assert marker in lines


def without(line: str) -> Memory:
    """A ring whose VMCOREINFO lacks one line."""
    memory = logwriter.ring(FEW)
    memory.lines = [one for one in memory.lines if not one.startswith(line)]
    return memory


@pytest.mark.parametrize(
    "line", ["SYMBOL(prb)", "OFFSET(prb_desc.state_var)", "SIZE(printk_info)", "OFFSET(atomic_long_t.counter)"]
)
def test_what_vmcoreinfo_lacks_is_named(line: str) -> None:
    with pytest.raises(NoLogError, match="VMCOREINFO") as caught:
        written(without(line))
    assert line in str(caught.value) or line == "SYMBOL(prb)"


def test_a_log_that_is_not_in_the_dump_is_a_sentence() -> None:
    memory = logwriter.ring(FEW)
    memory.lines = [line.replace("SYMBOL(prb)=ffff8880", "SYMBOL(prb)=ffff8881") for line in memory.lines]
    with pytest.raises(NoLogError, match="cannot be read"):
        written(memory)


def test_only_the_newest_records_and_text_within_the_limits_are_kept() -> None:
    large = [Record(n, bytes(1 << 20)) for n in range(17)]
    kept = dmesg.newest("ring", large)
    assert (kept.records, kept.left_out) == (tuple(large[1:]), 1)
    many = dmesg.newest("records", (Record(n, b"") for n in range(dmesg.MAX_RECORDS + 2)))
    assert (len(many.records), many.records[0].nanoseconds, many.left_out) == (dmesg.MAX_RECORDS, 2, 2)


@given(st.integers(0, 3), st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8)), max_size=12))
def test_a_damaged_log_is_a_log_or_no_log_in_bounded_time(which: int, damage: list[tuple[int, bytes]]) -> None:
    makes = (logwriter.ring, logwriter.records)
    memory = makes[which % 2](MANY, word=8 if which < 2 else 4)
    for at, piece in damage:
        at %= len(memory.content)
        memory.content[at : at + len(piece)] = piece[: len(memory.content) - at]
    found = dmesg.Log("ring", ())
    with suppress(NoLogError):
        found = log_of(BytesSource(memory.dump().tobytes()))
    assert all(line.replace("\t", "").isprintable() for line in found.lines())
    assert len(found.records) <= dmesg.MAX_RECORDS


def test_numbers_that_no_struct_has_are_refused() -> None:
    known = Vmcoreinfo({"SYMBOL(prb)": "1000", "OFFSET(printk_ringbuffer.desc_ring)": "-8"})
    with pytest.raises(NoLogError, match="-8"):
        dmesg.read(BytesSource(bytes(8192)), known, word=8, data="LE")


def hostile(**patches: int) -> Memory:
    """A ring of one record, with its counts and positions replaced; ``names`` are members of the two rings, in order."""
    memory = logwriter.ring([Line(n, b"x" * 8) for n in range(16)])
    rings = memory.content.rindex(memory.pack("I4x", 4), 0, len(memory.content))
    places = {"count_bits": 0, "descs": 8, "infos": 16, "head": 24, "tail": 32, "size_bits": 48, "data": 56}
    for name, value in patches.items():
        struct.pack_into("<Q", memory.content, rings + places[name], value)
    return memory


@pytest.mark.parametrize(
    "patches",
    [
        {"count_bits": 26, "head": (1 << 26) - 1, "tail": 0},
        {"count_bits": 26, "head": (1 << 26) - 1, "tail": 0, "descs": 0xFFFF_8881_0000_0000},
        {"count_bits": 26, "head": (1 << 26) - 1, "tail": 0, "size_bits": 31},
        {"count_bits": 27},
        {"count_bits": 0},
        {"size_bits": 32},
        {"size_bits": 3},
        {"descs": (1 << 64) - 8, "count_bits": 20},
    ],
)
def test_counts_and_pointers_that_lie_cost_no_time(patches: dict[str, int]) -> None:
    begun = time.process_time()
    with suppress(NoLogError):
        assert len(written(hostile(**patches))) <= 16
    assert time.process_time() - begun < 5


def test_messages_have_no_more_text_than_their_ring() -> None:
    memory = logwriter.ring([Line(n, b"x" * 100) for n in range(2)], size_bits=9)
    one = memory.content.index(memory.pack("QQH", 1, 1, 100))
    struct.pack_into("<H", memory.content, one + 16, 65535)
    found = written(memory)
    assert sum(len(text) for _, text in found) <= 512


def test_records_whose_text_is_longer_than_they_are_end_with_themselves() -> None:
    memory = logwriter.records([Line(1, b"short"), Line(2, b"next")])
    at = memory.content.index(memory.pack("QHH", 1, 24, 5))
    struct.pack_into("<H", memory.content, at + 10, 65535)
    assert [text[:5] for _, text in written(memory)] == [b"short", b"next"]
    assert len(written(memory)[0][1]) == 8


def test_a_log_buf_larger_than_any_is_refused() -> None:
    memory = logwriter.records(FEW)
    where = next(line for line in memory.lines if line.startswith("SYMBOL(log_buf_len)"))
    struct.pack_into("<I", memory.content, int(where.partition("=")[2], 16) - memory.base, (32 << 20) + 1)
    with pytest.raises(NoLogError, match="33,554,433"):
        written(memory)
