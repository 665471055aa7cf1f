"""Flattened: makedumpfile -F streams read as the files they restore to; the oracle writes the records into a bytearray."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import BadDumpError, FaultError
from farcore.flattened import Flattened
from farcore.source import BytesSource, Source, Window
from tests import kdumpwriter
from tests.source_contract import CONTENT, SourceContract


def opened(stream: bytes) -> Source:
    """What the stream restores to."""
    below = BytesSource(stream)
    return Flattened.index(below).over(below)


class TestFlattened(SourceContract):
    def make(self, content: bytes) -> Source:
        # Backwards, with one record too many: its byte is outside the window that the contract sees.
        pieces = [(at, content[at : at + 777]) for at in range(0, len(content), 777)]
        stream = kdumpwriter.flattened([(len(content), b"x"), *reversed(pieces)])
        return Window(opened(stream), 0, len(content))


records = st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=90)), min_size=1, max_size=12)


@given(records)
def test_records_in_any_order_restore_to_what_writing_them_in_turn_gives(written: list[tuple[int, bytes]]) -> None:
    restored = bytearray(max(at + len(content) for at, content in written))
    for at, content in written:
        restored[at : at + len(content)] = content
    source = opened(kdumpwriter.flattened(written))
    assert source.size == len(restored)
    assert source.pread(0, source.size) == bytes(restored)


@given(st.integers(4096, 4096 + 16 + 500 + 16 + 500 + 16))
def test_a_stream_cut_anywhere_is_read_as_far_as_it_goes_and_never_as_zeros(cut: int) -> None:
    low, high = CONTENT[:500], CONTENT[500:1000]
    stream = kdumpwriter.flattened([(500, high), (0, low)])
    held = max(0, min(500, cut - 4112)), max(0, min(500, cut - 4628))
    if not any(held):
        with pytest.raises(BadDumpError, match="holds nothing"):
            Flattened.index(BytesSource(stream[:cut]))
        return
    found = Flattened.index(BytesSource(stream[:cut]))
    assert (found.problem is None) == (cut == len(stream))
    assert found.size == 500 + held[0]
    source = found.over(BytesSource(stream[:cut]))
    assert source.pread(500, held[0]) == high[: held[0]]
    assert source.pread(0, held[1]) == low[: held[1]]
    if held[1] < 500:
        with pytest.raises(FaultError, match="absent"):
            source.pread(held[1], 1)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"makedumpfile\0\0\0\0", "within its header"),
        (struct.pack(">16sqq", b"makedumpfile", 1, 2).ljust(4096, b"\0"), "version 2"),
        (kdumpwriter.flattened([]), "no record"),
        (kdumpwriter.flattened([], end=struct.pack(">qq", -5, 10)), "is none"),
        (kdumpwriter.flattened([], end=struct.pack(">qq", 5, 0)), "is none"),
        (kdumpwriter.flattened([], end=struct.pack(">qq", (1 << 62) - 1, 1) + b"x"), "is none"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_sentence(stream: bytes, said: str) -> None:
    with pytest.raises(BadDumpError, match=said):
        Flattened.index(BytesSource(stream))


def test_a_record_that_is_none_ends_the_stream_and_what_came_before_is_kept() -> None:
    found = Flattened.index(BytesSource(kdumpwriter.flattened([(0, b"kept")], end=struct.pack(">qq", 4, -3))))
    assert (found.size, found.problem is None) == (4, False)


def test_no_more_records_are_followed_than_the_limit() -> None:
    streams = [BytesSource(kdumpwriter.flattened([(i, b"x") for i in range(count)])) for count in (3, 4)]
    assert Flattened.index(streams[0], most=3).size == 3
    with pytest.raises(BadDumpError, match="more than 3 records"):
        Flattened.index(streams[1], most=3)
