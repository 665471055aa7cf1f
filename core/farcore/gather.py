"""Gather: from a batch's items to the reads that answer them, and from what was read to a frame's table.

Planning is arrays in, arrays out, and touches no byte of a dump. An item is cut where its layout's runs end; what follows
each other in the answer and in the file becomes one read; reads become drafts of frames, none with more than FRAME bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from farcore.arrays import Array
from farcore.batch import SPACES, Batch, Space
from farcore.errors import FaultError
from farcore.frames import Entry, Found
from farcore.layout import Layout
from farcore.room import room
from farcore.runs import U64, Kind, Runs
from farcore.source import Source

# Data of a frame: zstd gains nothing from more (measured: 64 KiB to 4 MiB, within 2 %), and a core's cache holds it.
FRAME: Final = 256 << 10
# Reads and holes of a frame: 256 take half a millisecond, the longest that one draft keeps others waiting.
PIECES: Final = 1 << 8
# Zeros are found by whole blocks of this size, counted from the start of the answer: the size of nearly every page.
GRAIN: Final = 4096
# Cells (runs of a layout, or gaps between them, that an item touches) that are looked at in one go.
WINDOW: Final = 1 << 13
# A read at a negative offset is of the layout's composed head: at HEAD + position.
HEAD: Final = -(1 << 62)

_I64 = Array[np.int64]
_WORDS: Final = GRAIN // 8
_ONE: Final = np.uint64(1)
_PAST: Final = np.uint64((1 << 64) - 1)


class Draft(NamedTuple):
    """What one frame is to hold: the bytes from ``at`` of the answer on, as ``runs``; ``raw`` bytes of them by ``reads``.

    A read is (offset, length); a run of DATA is whole reads.
    """

    at: int
    raw: int
    reads: list[tuple[int, int]]
    runs: list[Entry]


class Gathered(NamedTuple):
    """A frame's table, and the bytes of all its DATA runs: writable, and its own."""

    runs: list[Entry]
    content: memoryview


class _Pieces(NamedTuple):
    """What items come to, in their order: kind, length, and where in the source DATA lies."""

    kind: Array[np.uint8]
    length: _I64
    offset: _I64


class Plan:
    """The drafts that answer ``batch``, made as they are asked for. ``cells`` bounds their reads and runs.

    ``layouts`` has one for each space that is in the batch. O(items) before the first draft.
    """

    def __init__(self, batch: Batch, layouts: Mapping[Space, Layout]) -> None:
        self._batch = batch
        self._runs = {SPACES.index(space): _runs(layout) for space, layout in layouts.items()}
        self._first = np.zeros(len(batch), np.int64)
        last = np.zeros(len(batch), np.int64)
        for space, runs in self._runs.items():
            rows = np.flatnonzero(batch.space == space)
            self._first[rows] = _cell(runs, batch.start[rows])
            last[rows] = _cell(runs, batch.start[rows] + batch.length[rows] - _ONE)
        count = last - self._first + 1
        self._ends = np.cumsum(count)
        self._begins = self._ends - count
        self.cells = int(count.sum())

    def __iter__(self) -> Iterator[Draft]:
        at = 0
        for low in range(0, self.cells, WINDOW):
            pieces = _joined(self._pieces(low, min(low + WINDOW, self.cells)))
            yield from _drafts(at, pieces)
            at += int(pieces.length.sum())

    def _pieces(self, low: int, high: int) -> _Pieces:
        """The cells [low, high) of all that the items touch, cut to them."""
        number = np.arange(low, high)
        item = np.searchsorted(self._ends, number, side="right")
        cell = self._first[item] + number - self._begins[item]
        space, begin = self._batch.space[item], self._batch.start[item]
        end = begin + self._batch.length[item]
        kind = np.empty(high - low, np.uint8)
        length, offset = np.empty(high - low, np.int64), np.empty(high - low, np.int64)
        for code, runs in self._runs.items():
            here = np.flatnonzero(space == code)
            kind[here], length[here], offset[here] = _cut(runs, cell[here], begin[here], end[here])
        held = length > 0
        return _Pieces(kind[held], length[held], offset[held])


def _runs(layout: Layout) -> Runs:
    """The layout's runs, its composed head as the first of them."""
    runs = layout.runs
    if not layout.head:
        return runs
    head = np.array([0, len(layout.head), HEAD % (1 << 64)], np.uint64)
    start, stop, offset = (
        np.concatenate([head[i : i + 1], each]) for i, each in enumerate((runs.start, runs.stop, runs.offset))
    )
    return Runs(start, stop, offset, np.concatenate([np.array([Kind.DATA], np.uint8), runs.kind]))


def _cell(runs: Runs, position: U64) -> _I64:
    """Which cell each position is in: 2i + 1 is run i, 2i the gap before it."""
    i = np.searchsorted(runs.stop, position, side="right")
    if len(runs) == 0:
        return i.astype(np.int64)
    inside = (i < len(runs)) & (runs.start[np.minimum(i, len(runs) - 1)] <= position)
    cells: _I64 = 2 * i + inside
    return cells


def _cut(runs: Runs, cell: _I64, begin: U64, end: U64) -> _Pieces:
    """The part of each cell that lies in [begin, end); a gap between runs that touch comes out empty."""
    if len(runs) == 0:
        return _Pieces(np.full(len(cell), Kind.ABSENT, np.uint8), (end - begin).astype(np.int64), np.zeros(len(cell), np.int64))
    i, is_run = cell >> 1, (cell & 1).astype(bool)
    here, before = np.minimum(i, len(runs) - 1), np.maximum(i - 1, 0)
    after_last = np.where(i < len(runs), runs.start[here], _PAST)
    low = np.maximum(np.where(is_run, runs.start[here], np.where(i > 0, runs.stop[before], np.uint64(0))), begin)
    high = np.minimum(np.where(is_run, runs.stop[here], after_last), end)
    kind = np.where(is_run, runs.kind[here], np.uint8(Kind.ABSENT))
    offset = np.where(kind == Kind.DATA, runs.offset[here] + (low - runs.start[here]), np.uint64(0))
    return _Pieces(kind, (high - low).astype(np.int64), offset.astype(np.int64))


def _joined(pieces: _Pieces) -> _Pieces:
    """Neighbours of one kind as one, DATA where it goes on in the source."""
    kind, length, offset = pieces
    if len(kind) == 0:
        return pieces
    same = (kind[1:] == kind[:-1]) & ((kind[1:] != Kind.DATA) | (offset[1:] == offset[:-1] + length[:-1]))
    heads = np.flatnonzero(np.concatenate([[True], ~same]))
    return _Pieces(kind[heads], np.add.reduceat(length, heads), offset[heads])


def _drafts(at: int, pieces: _Pieces) -> Iterator[Draft]:
    """Drafts of at most FRAME bytes of data and PIECES pieces; DATA is cut where a frame is full."""
    (kind, length, offset), number = _framed(pieces)
    if len(kind) == 0:
        return
    fresh = np.concatenate([[True], number[1:] != number[:-1]])
    nth = np.arange(len(kind)) - np.flatnonzero(fresh)[np.cumsum(fresh) - 1]
    first = nth % PIECES == 0
    runs = np.flatnonzero(first | np.concatenate([[True], kind[1:] != kind[:-1]]))
    entries = list(map(Entry, kind[runs].tolist(), np.add.reduceat(length, runs).tolist()))
    data = kind == Found.DATA
    reads = list(zip(offset[data].tolist(), length[data].tolist(), strict=True))
    edges = np.flatnonzero(np.concatenate([first, [True]]))
    # What comes before each draft, and before the end: bytes, bytes of data, reads, runs.
    before = [np.concatenate([[0], np.cumsum(each)])[edges].tolist() for each in (length, length * data, data)]
    rows = zip(*before, runs.searchsorted(edges).tolist(), strict=True)
    for (begin, raw, read, run), (_, raw_end, read_end, run_end) in pairwise(rows):
        yield Draft(at + begin, raw_end - raw, reads[read:read_end], entries[run:run_end])


def _framed(pieces: _Pieces) -> tuple[_Pieces, _I64]:
    """The pieces, cut at each multiple of FRAME bytes of data, and the number of each one's frame."""
    kind, length, offset = pieces
    size = np.where(kind == Kind.DATA, length, 0)
    end = np.cumsum(size)
    begin = end - size
    first = begin // FRAME
    parts = (np.maximum(end - 1, begin) // FRAME - first + 1).astype(np.intp)  # on i386 numpy repeats by 32 bits alone
    if np.all(parts == 1):
        return pieces, first
    each = np.repeat(np.arange(len(kind)), parts)
    frame = first[each] + np.arange(len(each)) - np.repeat(np.cumsum(parts) - parts, parts)
    low = np.maximum(begin[each], frame * FRAME)
    high = np.minimum(end[each], (frame + 1) * FRAME)
    data = kind[each] == Kind.DATA
    lengths = np.where(data, high - low, length[each])
    return _Pieces(kind[each], lengths, np.where(data, offset[each] + low - begin[each], 0)), frame


def collect(source: Source, draft: Draft, head: bytes = b"") -> Gathered:
    """What the draft asks for, read extent by extent; what the storage fails on is UNREADABLE, in blocks of GRAIN.

    SourceChangedError as the source's pread raises it.
    """
    runs: list[Entry] = []
    content, used = room(draft.raw), 0
    reads = iter(draft.reads)
    for kind, length, _ in draft.runs:
        rest = length if kind == Found.DATA else 0
        if not rest:
            _append(runs, kind, length)
        while rest:
            offset, size = next(reads)
            rest -= size
            for found, lost in _read(source, head, offset, size):
                _append(runs, Found.UNREADABLE if lost else Found.DATA, lost or len(found))
                content[used : used + len(found)] = found
                used += len(found)
    return Gathered(runs, content[:used])


def _read(source: Source, head: bytes, offset: int, length: int) -> Iterator[tuple[memoryview, int]]:
    """The bytes, or nothing and how many were lost; by blocks where they do not come as one."""
    if offset < 0:
        yield memoryview(head)[offset - HEAD : offset - HEAD + length], 0
        return
    try:
        yield source.pread(offset, length), 0
        return
    except FaultError as error:
        if error.kind != "unreadable":
            raise
    for at in range(offset, offset + length, GRAIN):
        size = min(GRAIN, offset + length - at)
        try:
            yield source.pread(at, size), 0
        except FaultError:
            yield memoryview(b""), size


def without_zeros(at: int, gathered: Gathered) -> Gathered:
    """The same, whole blocks of zeros taken out of the data, which is moved; ``at`` is where in the answer it starts."""
    runs: list[Entry] = []
    content = gathered.content
    kept = used = 0
    for kind, length, _ in gathered.runs:
        if kind != Found.DATA:
            _append(runs, kind, length)
        else:
            end = used + length
            for low, high in (*_zeros(content, used, end, -at % GRAIN), (end, end)):
                if used < low:
                    _append(runs, Found.DATA, low - used)
                    if kept < used:
                        content[kept : kept + low - used] = content[used:low]
                    kept += low - used
                if low < high:
                    _append(runs, Found.ZERO, high - low)
                used = high
        at += length
    return gathered if kept == len(content) else Gathered(runs, content[:kept])


def _zeros(content: memoryview, begin: int, end: int, lead: int) -> Sequence[tuple[int, int]]:
    """The [low, high) of each row of zero blocks in [begin, end); the first block starts at ``begin`` + ``lead``."""
    blocks = (end - begin - lead) // GRAIN
    if blocks <= 0:
        return ()
    words = np.frombuffer(content, np.uint64, blocks * _WORDS, begin + lead).reshape(blocks, _WORDS)
    filled = np.bitwise_or.reduce(words, axis=1) != 0  # half of the time that any() takes
    if filled.all():
        return ()
    edges = np.flatnonzero(np.diff(np.concatenate([[True], filled, [True]]))) * GRAIN + begin + lead
    return [(low, high) for low, high in edges.reshape(-1, 2).tolist()]


def _append(runs: list[Entry], kind: int, length: int) -> None:
    if runs and runs[-1].kind == kind:
        runs[-1] = Entry(kind, runs[-1].length + length)
    else:
        runs.append(Entry(kind, length))
