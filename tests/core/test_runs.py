"""Runs against positions painted one by one, around every power of two where 64-bit arithmetic could slip."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farcore.layout import Layout
from farcore.runs import U64, Kind, Run, Runs, among, compose, distinct, paint

# start, length, kind, offset
Piece = tuple[int, int, Kind, int]
BASES = (0, (1 << 32) - 30, (1 << 63) - 30, (1 << 64) - 61)
ROOM = 60

pieces = st.lists(
    st.tuples(
        st.integers(0, 40), st.integers(0, 20), st.sampled_from((Kind.DATA, Kind.ZERO, Kind.EXCLUDED)), st.integers(0, 9)
    ),
    max_size=12,
)


def u64(*numbers: int) -> U64:
    """An array of them."""
    return np.array(numbers, np.uint64)


def runs_of(painting: list[Piece], base: int = 0) -> Runs:
    """The code under test, on pieces moved by ``base``."""
    return paint(
        u64(*(base + start for start, *_ in painting)),
        u64(*(base + start + length for start, length, *_ in painting)),
        u64(*(base + offset for *_, offset in painting)),
        np.array([kind for _, _, kind, _ in painting], np.uint8),
    )


def cells(painting: list[Piece], base: int = 0) -> list[tuple[Kind, int]]:
    """For each of ROOM positions its kind and where its byte lies. The worst and last is painted first, the best over it."""
    canvas = [(Kind.ABSENT, 0)] * ROOM
    ranked = sorted(enumerate(painting), key=lambda numbered: (numbered[1][2], numbered[0]), reverse=True)
    for _, (start, length, kind, offset) in ranked:
        for i in range(length):
            canvas[start + i] = (kind, base + offset + i if kind is Kind.DATA else 0)
    return canvas


def spread(walked: list[Run]) -> list[tuple[Kind, int]]:
    """Runs as one entry a position."""
    return [(run.kind, run.offset + i * (run.kind is Kind.DATA)) for run in walked for i in range(run.stop - run.start)]


@pytest.mark.parametrize("base", BASES)
@example([(0, 20, Kind.EXCLUDED, 0), (5, 5, Kind.DATA, 3)])  # data beats an exclusion that comes first
@example([(5, 10, Kind.DATA, 0), (0, 20, Kind.DATA, 7)])  # the first beats what surrounds it
@given(pieces)
def test_every_position_is_what_was_painted_there(base: int, painting: list[Piece]) -> None:
    walked = list(runs_of(painting, base).walk(base, base + ROOM))
    assert spread(walked) == cells(painting, base)
    assert [run.start for run in walked] == [base, *(run.stop for run in walked[:-1])]
    assert all(run.start < run.stop for run in walked)


@pytest.mark.parametrize("base", BASES)
@given(pieces, st.integers(0, ROOM), st.integers(0, ROOM))
def test_a_walk_of_a_part_is_that_part_of_the_whole(base: int, painting: list[Piece], start: int, stop: int) -> None:
    walked = list(runs_of(painting, base).walk(base + start, base + stop))
    assert spread(walked) == cells(painting, base)[start:stop]
    assert not walked or (walked[0].start, walked[-1].stop) == (base + start, base + stop)


@pytest.mark.parametrize("base", BASES)
@given(pieces, st.integers(0, ROOM - 1), st.integers(1, ROOM))
def test_locate_tells_where_a_range_lies_in_one_piece_and_only_then(
    base: int, painting: list[Piece], start: int, length: int
) -> None:
    stop = min(start + length, ROOM)
    kinds, offsets = zip(*cells(painting, base)[start:stop], strict=True)
    whole = set(kinds) == {Kind.DATA} and offsets == tuple(range(offsets[0], offsets[0] + stop - start))
    layout = Layout("physical", 1 << 64, runs_of(painting, base))
    assert layout.locate(base + start, base + stop) == (offsets[0] if whole else None)


@given(pieces)
def test_runs_are_ascending_disjoint_and_as_few_as_can_be(painting: list[Piece]) -> None:
    runs = runs_of(painting)
    canvas = [(Kind.ABSENT, 0), *cells(painting)]
    breaks = sum(
        here[0] is not Kind.ABSENT and here != (before[0], before[1] + (before[0] is Kind.DATA))
        for before, here in pairwise(canvas)
    )
    assert len(runs) == breaks
    edges = [int(edge) for both in zip(runs.start, runs.stop, strict=True) for edge in both]
    assert edges == sorted(edges)
    assert all(runs.start < runs.stop)


@pytest.mark.parametrize("edge", [2, 1 << 32, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize(
    ("kind", "gap", "expected"), [(Kind.DATA, 0, 1), (Kind.DATA, -1, 2), (Kind.ZERO, -1, 1), (Kind.EXCLUDED, -1, 1)]
)
def test_pieces_that_meet_are_one_run_unless_their_bytes_lie_apart(edge: int, kind: Kind, gap: int, expected: int) -> None:
    kinds = np.array([kind, kind], np.uint8)
    assert len(paint(u64(edge - 1, 0), u64(edge, edge - 1), u64(edge - 1 + gap, 0), kinds)) == expected


def test_without_pieces_everything_is_absent() -> None:
    for runs in (runs_of([]), runs_of([(3, 0, Kind.DATA, 0)])):
        assert len(runs) == 0
        assert list(runs.walk(5, (1 << 64) - 1)) == [Run(5, (1 << 64) - 1, Kind.ABSENT, 0)]


@pytest.mark.parametrize("at", [0, 5, 10, 1 << 63, (1 << 64) - 1, 1 << 64])
def test_a_walk_of_no_positions_is_empty_even_behind_the_last_one_there_can_be(at: int) -> None:
    assert list(runs_of([(0, 10, Kind.DATA, 0)]).walk(at, at)) == []


def test_a_walk_reaches_one_past_the_last_64_bit_position() -> None:
    last = (1 << 64) - 1
    runs = paint(u64(last - 9), u64(last), u64(100), np.zeros(1, np.uint8))
    assert list(runs.walk(last - 1, 1 << 64)) == [Run(last - 1, last, Kind.DATA, 108), Run(last, 1 << 64, Kind.ABSENT, 0)]


def test_runs_cannot_be_written_to() -> None:
    runs = runs_of([(0, 10, Kind.DATA, 0)])
    for column in (runs.start, runs.stop, runs.offset, runs.kind):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


@pytest.mark.parametrize("longest", [1, 30, 3_000, 400_000])
def test_70_000_pieces_however_much_they_overlap_are_painted_right(longest: int) -> None:
    count, room = 70_000, 500_000
    rng = np.random.default_rng(longest)
    start = rng.integers(0, room - longest, count).astype(np.uint64)
    stop = start + rng.integers(0, longest + 1, count).astype(np.uint64)
    offset = rng.integers(0, 1 << 62, count).astype(np.uint64)
    kind = rng.choice(np.array([Kind.DATA, Kind.EXCLUDED], np.uint8), count)
    # Painted worst first, on positions: the piece that is seen at last, and nothing (-1) where there is none.
    seen = np.full(room, -1)
    for i in (*np.flatnonzero(kind)[::-1], *np.flatnonzero(kind == 0)[::-1]):
        seen[start[i] : stop[i]] = i
    runs = paint(start, stop, offset, kind)
    position = np.arange(room, dtype=np.uint64)
    run = np.searchsorted(runs.stop, position, side="right")
    inside = run < len(runs)
    inside[inside] = runs.start[run[inside]] <= position[inside]
    assert np.array_equal(inside, seen >= 0)
    run, seen, position = run[inside], seen[inside], position[inside]
    assert np.array_equal(runs.kind[run], kind[seen])
    data = kind[seen] == Kind.DATA
    found = runs.offset[run] + (position - runs.start[run])
    assert np.array_equal(found[data], (offset[seen] + (position - start[seen]))[data])


@given(pieces, pieces)
def test_runs_over_runs_lead_where_both_lead_one_after_the_other(outer: list[Piece], inner: list[Piece]) -> None:
    through = cells(inner) + [(Kind.ABSENT, 0)] * ROOM
    expected = [through[offset] if kind is Kind.DATA else (kind, 0) for kind, offset in cells(outer)]
    composed = compose(runs_of(outer), runs_of(inner))
    assert spread(list(composed.walk(0, ROOM))) == expected
    assert (composed.stop[:-1] <= composed.start[1:]).all()


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_distinct_and_among_are_numpys_unique_and_isin(values: list[int], chosen: list[int]) -> None:
    some, wanted = np.array(values, np.uint64), np.array(chosen, np.uint64)
    assert np.array_equal(distinct(some), np.unique(some))
    assert np.array_equal(among(some, distinct(wanted)), np.isin(some, wanted))
