"""The memory map of a dump: which physical addresses hold data, zeros, exclusions or nothing; zeros are found by reading.

A page counts as zero if all bytes of it that the dump has are zero. Bytes that cannot be read (a bad disk) count as data: it
is not known that they are zero. 100 GiB take as long as reading them does;
of a kdump-compressed dump page descriptors tell most of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from farcore.arrays import Array
from farcore.errors import FaultError
from farcore.kdump import Kdump
from farcore.runs import Kind, Run, Runs, compose
from farcore.source import Source

PAGE: Final = 4096
# Read at once.
PIECE: Final = 1 << 20
# Bytes read in a step: a few milliseconds. Of page descriptors 64 times as many are told.
STEP: Final = 4 << 20
_DESCRIBED: Final = 64 * STEP
# Runs made in a step.
STEP_RUNS: Final = 1 << 12

NAMES: Final = {Kind.DATA: "data", Kind.ZERO: "zero", Kind.EXCLUDED: "excluded", Kind.ABSENT: "absent"}

_Piece = tuple[int, int, Kind]
_KINDS: Final = tuple(Kind)


def steps(memory: Source, runs: Runs, size: int) -> Iterator[list[Run]]:
    """The runs of [0, ``size``), ascending and whole, neighbours of two kinds; those that a step of work found, or none yet.

    ``memory`` is read by address where ``runs`` have data, a Kdump by its page descriptors; offsets are 0.
    """
    joined = _Joined()
    at = 0
    for pieces in _described(memory) if isinstance(memory, Kdump) else _read(memory, runs, size):
        for start, stop, kind in pieces:
            if at < start:
                joined.add(at, start, Kind.ABSENT)
            joined.add(start, stop, kind)
            at = stop
        yield joined.take()
    if at < size:
        joined.add(at, size, Kind.ABSENT)
    yield [*joined.take(), *joined.last]


class _Joined:
    """Runs made of pieces that come in order; those that can no longer grow are ``done``."""

    def __init__(self) -> None:
        self.done: list[Run] = []
        self.last: list[Run] = []

    def add(self, start: int, stop: int, kind: Kind) -> None:
        if self.last and self.last[0].kind is kind:
            start = self.last[0].start
        else:
            self.done += self.last
        self.last = [Run(start, stop, kind, 0)]

    def take(self) -> list[Run]:
        done, self.done = self.done, []
        return done


def _pieces(runs: Runs, size: int) -> Iterator[tuple[int, int, Kind]]:
    """The runs of [0, size), data cut into pieces that end with a page."""
    for start, stop, kind, _ in runs.walk(0, size):
        while kind is Kind.DATA and stop - start > PIECE:
            cut = (start + PIECE) // PAGE * PAGE
            yield start, cut, kind
            start = cut
        yield start, stop, kind


def _read(memory: Source, runs: Runs, size: int) -> Iterator[list[_Piece]]:
    """By reading what is data, STEP bytes at a time."""
    found: list[_Piece] = []
    read = 0
    for start, stop, kind in _pieces(runs, size):
        if kind is not Kind.DATA:
            found.append((start, stop, kind))
        else:
            read += stop - start
            found += _told_apart(memory, start, stop)
        if read >= STEP or len(found) >= STEP_RUNS:
            yield found
            found, read = [], 0
    yield found


def _told_apart(memory: Source, start: int, stop: int) -> Iterator[_Piece]:
    """Data of [start, stop) and zeros, page by page."""
    try:
        content = memory.pread(start, stop - start)
    except FaultError:
        yield start, stop, Kind.DATA
        return
    first, last = start // PAGE * PAGE, -(-stop // PAGE) * PAGE
    if last - first != len(content):
        padded = bytearray(last - first)
        padded[start - first : stop - first] = content
        content = memoryview(padded)
    zero = _zero(content)
    edges = [0, *(np.flatnonzero(zero[1:] != zero[:-1]) + 1).tolist(), len(zero)]
    for low, high in pairwise(edges):
        kind = Kind.ZERO if zero[low] else Kind.DATA
        yield max(start, first + low * PAGE), min(stop, first + high * PAGE), kind


def _described(memory: Kdump) -> Iterator[list[_Piece]]:
    """By page descriptors, as many as _DESCRIBED bytes have at a time."""
    for some in _slices(memory.pages.runs):
        data = np.flatnonzero(some.kind == Kind.DATA)
        start, end = some.offset[data], some.offset[data] + some.stop[data] - some.start[data]
        # Frames that were lost have descriptors as well, or had.
        breaks = (np.flatnonzero(start[1:] != end[:-1]) + 1).tolist()
        edges = [0, *breaks, len(data)] if len(data) else []
        told = [_zeros(memory, int(start[low]), int(end[high - 1])) for low, high in pairwise(edges)]
        if told:
            some = compose(some, _joined(told))
        yield list(zip(some.start.tolist(), some.stop.tolist(), map(_KINDS.__getitem__, some.kind.tolist()), strict=True))


def _joined(parts: list[Runs]) -> Runs:
    """One after the other."""
    return Runs(
        np.concatenate([each.start for each in parts]),
        np.concatenate([each.stop for each in parts]),
        np.concatenate([each.offset for each in parts]),
        np.concatenate([each.kind for each in parts]),
    )


def _zeros(memory: Kdump, start: int, end: int) -> Runs:
    """Runs over the dumped pages [start, end), zeros told from data."""
    block = memory.block
    zero = memory.zeros(start // block, (end - start) // block)
    edges = np.concatenate([[0], np.flatnonzero(zero[1:] != zero[:-1]) + 1, [len(zero)]]).astype(np.uint64)
    at = edges * np.uint64(block) + np.uint64(start)
    kind = np.where(zero[edges[:-1].astype(np.intp)], Kind.ZERO, Kind.DATA).astype(np.uint8)
    return Runs(at[:-1], at[1:], at[:-1], kind)


def _slices(runs: Runs) -> Iterator[Runs]:
    """The runs, STEP_RUNS and _DESCRIBED bytes of data at most at a time; one that is longer is cut."""
    at, done = 0, 0
    while at < len(runs):
        few = slice(at, at + STEP_RUNS)
        start, stop, offset = (column[few].copy() for column in (runs.start, runs.stop, runs.offset))
        kind = runs.kind[few]
        skipped = max(0, done - int(start[0]))
        start[0] += np.uint64(skipped)
        offset[0] += np.uint64(skipped)
        ends = np.cumsum(np.where(kind == Kind.DATA, stop - start, np.uint64(0)), dtype=np.uint64)
        full = int(np.searchsorted(ends, np.uint64(_DESCRIBED)))
        if full < len(ends) and ends[full] > _DESCRIBED:
            stop[full] -= ends[full] - np.uint64(_DESCRIBED)
            at, done = at + full, int(stop[full])
        else:
            at += min(full + 1, len(ends))
        some = slice(0, full + 1)
        yield Runs(start[some], stop[some], offset[some], kind[some])


def _zero(content: bytes | bytearray | memoryview) -> Array[np.bool_]:
    """Which pages hold zeros alone."""
    return np.logical_not(np.frombuffer(content, np.uint64).reshape(-1, PAGE // 8).any(axis=1))
