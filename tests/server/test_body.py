"""A body's pieces, put together, against slices of bytes that were laid out by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import FaultError
from farcore.layout import Layout, stored
from farcore.runs import Kind, paint
from farcore.source import Extent
from farcore_server.answer import Part
from farcore_server.body import COPIED, PIECE, demand, pieces

FILE = np.random.default_rng(1).bytes(3 * PIECE + 4321)
# Around every limit that pieces are cut at.
LENGTHS = (
    1,
    100,
    COPIED - 1,
    COPIED,
    COPIED + 1,
    2 * COPIED,
    PIECE,
    PIECE + 1,
    PIECE + COPIED,
    PIECE + COPIED + 1,
    2 * PIECE + 7,
)
HOLES = (Kind.EXCLUDED, Kind.ABSENT)


@dataclass(frozen=True, slots=True)
class Laid:
    """A layout, what it reads as with zeros in its holes, and where its holes are."""

    layout: Layout
    content: bytes
    holes: tuple[tuple[int, int, Kind], ...]


def laid(head: bytes, segments: list[tuple[Kind, int, int]]) -> Laid:
    """``head``, then segments of (kind, length, offset in FILE)."""
    edges = list(accumulate((length for _, length, _ in segments), initial=len(head)))
    there = [(edges[i], edges[i + 1], *segments[i]) for i in range(len(segments)) if segments[i][0] is not Kind.ABSENT]
    runs = paint(
        np.array([start for start, *_ in there], np.uint64),
        np.array([stop for _, stop, *_ in there], np.uint64),
        np.array([offset for *_, offset in there], np.uint64),
        np.array([kind for _, _, kind, *_ in there], np.uint8),
    )
    content = b"".join(
        FILE[offset : offset + length] if kind is Kind.DATA else bytes(length) for kind, length, offset in segments
    )
    holes = tuple((edges[i], edges[i + 1], kind) for i, (kind, _, _) in enumerate(segments) if kind in HOLES)
    return Laid(Layout("physical", edges[-1], runs, head), head + content, holes)


def segments(*kinds: Kind) -> st.SearchStrategy[list[tuple[Kind, int, int]]]:
    """Up to five of them, of these kinds."""
    one = st.tuples(st.sampled_from(kinds), st.sampled_from(LENGTHS), st.integers(0, 4321))
    return st.lists(one, max_size=5)


heads = st.sampled_from((b"", b"E", b"ELF" * 1000))


@st.composite
def parts(draw: st.DrawFn, size: int) -> list[Part]:
    """Up to three, in any order, some behind a head of their own."""
    edges = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)
    drawn = draw(st.lists(st.tuples(st.sampled_from((b"", b"--boundary\r\n\r\n")), edges), max_size=3))
    return [Part(head, start, stop) for head, (start, stop) in drawn]


def put_together(found: Iterable[memoryview | Extent]) -> bytes:
    """The body's bytes."""
    return b"".join(bytes(piece) if isinstance(piece, memoryview) else FILE[piece.offset :][: piece.length] for piece in found)


@given(heads, segments(Kind.DATA, Kind.ZERO), st.data())
def test_the_pieces_of_any_parts_are_slices_behind_their_heads(
    head: bytes, drawn: list[tuple[Kind, int, int]], draw: st.DataObject
) -> None:
    made = laid(head, drawn)
    asked = draw.draw(parts(made.layout.size))
    for each in (asked, [Part(b"", 0, made.layout.size)]):
        expected = b"".join(part.head + made.content[part.start : part.stop] for part in each)
        assert put_together(pieces(made.layout, each, fill=False)) == expected


@given(heads, segments(Kind.DATA, Kind.ZERO, *HOLES), st.data())
def test_no_piece_is_empty_no_literal_one_larger_than_a_turn_and_a_runs_last_one_is_small(
    head: bytes, drawn: list[tuple[Kind, int, int]], draw: st.DataObject
) -> None:
    made = laid(head, drawn)
    start, stop = draw.draw(st.tuples(st.integers(0, made.layout.size), st.integers(0, made.layout.size)).map(sorted))
    found = list(pieces(made.layout, [Part(b"", start, stop)], fill=True))
    lengths = [len(piece) if isinstance(piece, memoryview) else piece.length for piece in found]
    assert all(lengths)
    assert all(len(piece) <= PIECE for piece in found if isinstance(piece, memoryview))
    ends = list(accumulate(lengths, initial=start))[1:]
    last = {run.stop for run in made.layout.runs.walk(max(start, len(head)), max(stop, len(head))) if run.kind is Kind.DATA}
    assert last <= set(ends)
    assert all(length <= COPIED for length, end in zip(lengths, ends, strict=True) if end in last)


def test_a_composed_head_of_many_pt_loads_is_cut_as_well() -> None:
    # 70,000 program headers are 3.9 MB.
    head = FILE[: 3 * PIECE + 5]
    made = laid(head, [(Kind.DATA, COPIED, 9)])
    for start in (0, 1, PIECE - 1, 3 * PIECE, len(head)):
        found = list(pieces(made.layout, [Part(b"", start, made.layout.size)], fill=False))
        assert put_together(found) == made.content[start:]
        assert max(len(piece) if isinstance(piece, memoryview) else piece.length for piece in found) <= PIECE


def test_large_pieces_come_first_and_the_rest_is_copied() -> None:
    assert list(pieces(stored(2 * PIECE + COPIED), [Part(b"", 0, 2 * PIECE + COPIED)], fill=False)) == [
        Extent(0, 2 * PIECE),
        Extent(2 * PIECE, COPIED),
    ]
    assert list(pieces(stored(COPIED), [Part(b"", 0, COPIED)], fill=False)) == [Extent(0, COPIED)]
    assert list(pieces(stored(COPIED + 1), [Part(b"", 0, COPIED + 1)], fill=False)) == [Extent(0, 1), Extent(1, COPIED)]


@given(heads, segments(Kind.DATA, Kind.ZERO, *HOLES), st.data())
def test_holes_are_zeros_if_asked_for(head: bytes, drawn: list[tuple[Kind, int, int]], draw: st.DataObject) -> None:
    made = laid(head, drawn)
    asked = draw.draw(parts(made.layout.size))
    expected = b"".join(part.head + made.content[part.start : part.stop] for part in asked)
    assert put_together(pieces(made.layout, asked, fill=True)) == expected


@given(heads, segments(Kind.DATA, Kind.ZERO, *HOLES), st.data())
def test_demand_and_pieces_fault_exactly_where_a_hole_is(
    top: bytes, drawn: list[tuple[Kind, int, int]], draw: st.DataObject
) -> None:
    made = laid(top, drawn)
    asked = draw.draw(parts(made.layout.size))
    fault, before = None, b""
    for head, start, stop in asked:
        touched = [(max(low, start), kind) for low, high, kind in made.holes if max(low, start) < min(high, stop)]
        fault = touched[0] if touched else None
        before += head + made.content[start : fault[0] if fault else stop]
        if fault:
            break
    if fault is None:
        demand(made.layout, asked)
        return
    sent: list[memoryview | Extent] = []
    with pytest.raises(FaultError) as demanded:
        demand(made.layout, asked)
    with pytest.raises(FaultError) as met:
        sent.extend(pieces(made.layout, asked, fill=False))
    for caught in (demanded, met):
        assert (caught.value.address, caught.value.kind) == (fault[0], fault[1].name.lower())
        assert caught.value.space == "physical"
    assert put_together(sent) == before
