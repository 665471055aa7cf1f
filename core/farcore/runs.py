"""Runs: which positions of an address space hold what, as sorted, disjoint arrays.

Built once from possibly overlapping pieces (kernel text stands in a dump twice, QEMU's paging=true describes a page by
hundreds of PT_LOADs), then looked up by bisection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from farcore.arrays import Array

U64 = Array[np.uint64]


class Kind(IntEnum):
    """What a run of positions is; the lower one wins where two overlap."""

    DATA = 0
    ZERO = 1
    EXCLUDED = 2
    ABSENT = 3


class Run(NamedTuple):
    """Positions [start, stop) of one kind; ``offset`` is where DATA lies in the source below (else 0)."""

    start: int
    stop: int
    kind: Kind
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Disjoint runs, ascending: ``start``, ``stop``, ``offset`` (uint64) and ``kind`` (uint8), one entry a run.

    What no run covers is ABSENT.
    """

    start: U64
    stop: U64
    offset: U64
    kind: Array[np.uint8]

    def __len__(self) -> int:
        return len(self.start)

    def walk(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that together are exactly [start, stop), gaps included as ABSENT, cut to size."""
        if start >= stop:  # and so that 2^64, one past the last position, is never looked up
            return
        first = int(np.searchsorted(self.stop, np.uint64(start), side="right"))
        at = start
        for i in range(first, len(self.start)):
            if at >= stop:
                return
            low, high = int(self.start[i]), int(self.stop[i])
            if low >= stop:
                break
            if at < low:
                yield Run(at, low, Kind.ABSENT, 0)
                at = low
            kind = Kind(self.kind[i])
            offset = int(self.offset[i]) + at - low if kind is Kind.DATA else 0
            yield Run(at, min(high, stop), kind, offset)
            at = min(high, stop)
        if at < stop:
            yield Run(at, stop, Kind.ABSENT, 0)


def distinct(values: U64) -> U64:
    """The values ascending, each once: np.unique, which imports numpy.ma, 16 ms of a command's start."""
    ordered: U64 = np.sort(values)
    first: Array[np.bool_] = np.concatenate([np.ones(min(1, len(ordered)), np.bool_), ordered[1:] != ordered[:-1]])
    return ordered[first]


def among(values: U64, chosen: U64) -> Array[np.bool_]:
    """Which of the values are ``chosen``, which ascend: np.isin, which imports as much."""
    if not len(chosen):
        return np.zeros(len(values), np.bool_)
    found: Array[np.bool_] = chosen[np.minimum(np.searchsorted(chosen, values), len(chosen) - 1)] == values
    return found


def paint(start: U64, stop: U64, offset: U64, kind: Array[np.uint8]) -> Runs:
    """Runs out of pieces that may overlap: a lower Kind wins, and within one the piece that comes first.

    O(n log n) in numpy; empty pieces are dropped, neighbours that continue each other become one run.
    """
    used = np.flatnonzero(start < stop)
    order = used[np.argsort(kind[used], kind="stable")]
    start, stop, offset, kind = start[order], stop[order], offset[order], kind[order]
    by_start = np.argsort(start, kind="stable")
    if np.all(stop[by_start][:-1] <= start[by_start][1:]):
        return join(start[by_start], stop[by_start], offset[by_start], kind[by_start])
    points = distinct(np.concatenate([start, stop]))
    owner = _lowest_cover(np.searchsorted(points, start), np.searchsorted(points, stop), len(points) - 1)
    covered = np.flatnonzero(owner < len(start))
    owner = owner[covered]
    low = points[covered]
    moved = np.where(kind[owner] == Kind.DATA, offset[owner] + (low - start[owner]), np.uint64(0))
    return join(low, points[covered + 1], moved, kind[owner])


def _lowest_cover(first: Array[np.intp], last: Array[np.intp], cells: int) -> Array[np.intp]:
    """For each cell the lowest i with first[i] <= cell < last[i]; len(first) where there is none.

    A sparse table read backwards: an interval is two overlapping windows of 2^k cells, entered at level k; each level
    then hands its minima down to the two halves.
    """
    none = len(first)
    level = np.frexp((last - first).astype(np.float64))[1] - 1
    owner = np.full(cells, none, np.intp)
    for k in range(int(level.max()), -1, -1):
        half = 1 << k
        if 2 * half <= cells:  # hand down what level k + 1 knows
            owner[half:] = np.minimum(owner[half:], owner[:-half].copy())
        here = np.flatnonzero(level == k)[::-1]  # descending, so that the lowest is written last
        entered = np.full(cells, none, np.intp)
        entered[first[here]] = here
        owner = np.minimum(owner, entered)
        entered[:] = none
        entered[last[here] - half] = here
        owner = np.minimum(owner, entered)
    return owner


def join(start: U64, stop: U64, offset: U64, kind: Array[np.uint8]) -> Runs:
    """Neighbours of one kind that continue each other (for DATA in the source too) become one."""
    if len(start) == 0:
        return Runs(start, stop, offset, kind)
    length = stop - start
    touches = (stop[:-1] == start[1:]) & (kind[:-1] == kind[1:])
    touches &= (kind[1:] != Kind.DATA) | (offset[:-1] + length[:-1] == offset[1:])
    heads = np.flatnonzero(np.concatenate([[True], ~touches]))
    tails = np.concatenate([heads[1:], [len(start)]]) - 1
    runs = Runs(start[heads], stop[tails], offset[heads], kind[heads])
    for column in (runs.start, runs.stop, runs.offset, runs.kind):
        column.flags.writeable = False
    return runs


def compose(outer: Runs, inner: Runs) -> Runs:
    """``outer``, whose DATA lies at positions of ``inner``, as runs over what ``inner`` lies over.

    What outer has where inner is a gap becomes a gap. O((n + m) log m) in numpy.
    """
    data = np.flatnonzero(outer.kind == Kind.DATA)
    begin, length = outer.offset[data], outer.stop[data] - outer.start[data]
    end = begin + length
    first = np.searchsorted(inner.stop, begin, side="right")
    count = np.maximum(np.searchsorted(inner.start, end, side="left") - first, 0)
    each = np.repeat(np.arange(len(data)), count)
    cell = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count) + first[each]
    low = np.maximum(inner.start[cell], begin[each])
    high = np.minimum(inner.stop[cell], end[each])
    kind = inner.kind[cell]
    at = outer.start[data][each] + (low - begin[each])
    offset = np.where(kind == Kind.DATA, inner.offset[cell] + (low - inner.start[cell]), np.uint64(0))
    rest = np.flatnonzero(outer.kind != Kind.DATA)
    start = np.concatenate([at, outer.start[rest]])
    order = np.argsort(start, kind="stable")
    return join(
        start[order],
        np.concatenate([at + (high - low), outer.stop[rest]])[order],
        np.concatenate([offset, np.zeros(len(rest), np.uint64)])[order],
        np.concatenate([kind, outer.kind[rest]])[order],
    )
