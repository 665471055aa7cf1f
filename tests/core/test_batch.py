"""Batch: its bytes against tests.pages_wire, what it refuses, and how an answer falls apart into items again."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore import frames
from farcore.batch import MAX_BODY, MAX_ITEMS, Batch, Item, Space
from farcore.errors import FrameError
from farcore.frames import Decoder, Entry, Found, Piece
from tests import pages_wire

TOP = 1 << 64
SPACES: tuple[Space, ...] = ("physical", "vmcore", "stored")
spaces = st.sampled_from(SPACES)
lengths = st.integers(1, 5) | st.integers(1, (1 << 32) - 1)


@st.composite
def items(draw: st.DrawFn) -> Item:
    length = draw(lengths)
    return Item(draw(spaces), draw(st.integers(0, 9) | st.integers(0, TOP - 1 - length)), length)


def wrong(body: bytes, at: int, value: bytes) -> bytes:
    """The body with other bytes at one place."""
    return body[:at] + value + body[at + len(value) :]


SOUND = pages_wire.request([("physical", 0x1000, 4096), ("stored", 7, 9)], 1)


@given(st.lists(items(), max_size=40), st.none() | st.integers(-5, 9))
def test_a_batch_is_packed_and_parsed_as_the_format_has_it(wanted: list[Item], level: int | None) -> None:
    body = pages_wire.request(wanted, level)
    assert Batch.of(wanted, level).pack() == body
    batch = Batch.parse(body)
    assert (len(batch), batch.level, batch.total) == (len(wanted), level, sum(item.length for item in wanted))
    assert batch.start.tolist() == [item.start for item in wanted]
    assert batch.length.tolist() == [item.length for item in wanted]
    assert batch.space.tolist() == [pages_wire.SPACES[item.space] for item in wanted]


def test_the_longest_body_holds_as_many_items_as_a_batch_may_have() -> None:
    assert len(pages_wire.request([("stored", 0, 1)] * MAX_ITEMS)) == MAX_BODY


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "FCPQ"),
        (SOUND[:15], "FCPQ"),
        (wrong(SOUND, 0, b"FCPA"), "FCPQ"),
        (wrong(SOUND, 4, b"\2"), "version 2"),
        (wrong(SOUND, 4, b"\0"), "version 0"),
        (wrong(SOUND, 6, b"\x0a"), "level 10"),
        (wrong(SOUND, 6, struct.pack("b", -6)), "level -6"),
        (wrong(SOUND, 7, b"\1"), "not zero"),
        (wrong(SOUND, 12, b"\1"), "not zero"),
        (wrong(SOUND, 16 + 13, b"\1"), "not zero"),
        (SOUND[:-1], "48 bytes; there are 47"),
        (SOUND + b"\0", "48 bytes; there are 49"),
        (wrong(SOUND, 8, b"\xff" * 4), "4,294,967,295 items"),
        (wrong(SOUND, 32 + 8, bytes(4)), "item 1 has no length"),
        (wrong(SOUND, 16 + 12, b"\3"), "item 0 is of a space"),
        (wrong(SOUND, 32, b"\xff" * 8), "item 1 reaches"),
    ],
)
def test_a_body_that_is_not_a_batch_is_refused_with_what_is_wrong(body: bytes, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        Batch.parse(body)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda rest: SOUND[:8] + rest))
def test_any_bytes_are_a_batch_that_packs_to_them_or_a_frame_error(body: bytes) -> None:
    try:
        batch = Batch.parse(body)
    except FrameError:
        return
    # The level of a reader without zstd, and codecs that are not known yet, are not kept.
    assert batch.pack()[8:] == body[8:]


def test_codecs_of_later_versions_are_passed_over() -> None:
    assert Batch.parse(wrong(SOUND, 5, b"\xff")).level == 1
    assert Batch.parse(wrong(SOUND, 5, b"\xfe")).level is None


@pytest.mark.parametrize(
    ("space", "start", "length"),
    [
        ("stored", -1, 1),
        ("stored", TOP, 1),
        ("stored", 0, 1 << 32),
        ("stored", 0, -1),
        ("stored", 0, 0),
        ("stored", TOP - 1, 1),
        ("stored", TOP - 9, 9),
    ],
)
def test_an_item_that_cannot_be_asked_for_is_refused_before_it_is_sent(space: Space, start: int, length: int) -> None:
    with pytest.raises(FrameError, match="item 1"):
        Batch.of([Item("stored", TOP - 9, 8), Item(space, start, length)])


@pytest.mark.parametrize("level", [-6, 10])
def test_a_level_that_nobody_answers_is_refused_before_it_is_sent(level: int) -> None:
    with pytest.raises(FrameError, match=f"level {level} "):
        Batch.of([], level)


@given(st.lists(st.integers(1, 30), max_size=12), st.data())
def test_an_answer_is_split_into_the_items_that_were_asked_for(lengths: list[int], data: st.DataObject) -> None:
    batch = Batch.of([("stored", 0, length) for length in lengths])
    total = sum(lengths)
    text = data.draw(st.binary(min_size=total, max_size=total))
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=8)))
    pieces = []
    for number, (low, high) in enumerate(zip([0, *cuts], [*cuts, total], strict=True)):
        if low < high:
            kind = Found(number % len(Found))
            pieces.append(Piece(low, high - low, kind, memoryview(text[low:high] if kind is Found.DATA else b"")))
    whole = [
        (piece.kind, text[i] if piece.content else None) for piece in pieces for i in range(piece.at, piece.at + piece.length)
    ]
    split = []
    place = [0] * len(lengths)
    # Pieces come frame by frame, and so are they split.
    for part in [part for piece in pieces for part in batch.split([piece])]:
        assert part.length
        assert part.offset == place[part.item]
        place[part.item] += part.length
        split += [(part.kind, part.content[i] if part.content else None) for i in range(part.length)]
    assert (split, place) == (whole, lengths)


def test_the_example_of_the_documentation_is_what_is_asked_and_answered() -> None:
    text = (Path(__file__).parents[2] / "docs" / "pages.md").read_text()
    body, answer = (bytes.fromhex(block) for block in re.findall(r"\n\n((?:    [0-9a-f ]+\n)+)", text))
    batch = Batch.of([("physical", 0x100000, 8192), ("vmcore", 0, 4)], 1)
    assert batch.pack() == body
    decoder = Decoder(batch.total, zstd=True)
    parts = [(item, length, kind.name, bytes(content)) for item, _, length, kind, content in batch.split(decoder.feed(answer))]
    decoder.finish()
    assert parts == [(0, 4096, "ZERO", b""), (0, 4096, "ABSENT", b""), (1, 4, "DATA", b"\x7fELF")]
    frame, stored = frames.frame(0, [Entry(1, 4096), Entry(3, 4096), Entry(0, 4)], b"\x7fELF", 1)
    assert frames.opening(8196) + frame + stored + frames.closing(8196, 1) == answer
