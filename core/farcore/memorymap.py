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
import numpy.typing as npt

from farcore.errors import FaultError
from farcore.kdump import Kdump
from farcore.runs import Kind, Run, Runs
from farcore.source import Source

PAGE: Final = 4096
# Read at once.
PIECE: Final = 1 << 20
# Bytes read, and runs made, in a step: a few milliseconds.
STEP: Final = 4 << 20
STEP_RUNS: Final = 1 << 12

NAMES: Final = {Kind.DATA: "data", Kind.ZERO: "zero", Kind.EXCLUDED: "excluded", Kind.ABSENT: "absent"}


def steps(memory: Source, runs: Runs, size: int) -> Iterator[list[Run]]:
    """The runs of [0, ``size``), ascending and whole, neighbours of two kinds; those that a step of work found, or none yet.

    ``memory`` is read by address where ``runs`` have data, a Kdump by its page descriptors; offsets are 0.
    """
    told = _described if isinstance(memory, Kdump) else _read
    joined = _Joined()
    read = 0
    for start, stop, kind in _pieces(runs, size):
        if kind is not Kind.DATA:
            joined.add(start, stop, kind)
        else:
            read += stop - start
            for run in told(memory, start, stop):
                joined.add(*run)
        if read >= STEP or len(joined.done) >= STEP_RUNS:
            yield joined.take()
            read = 0
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


def _read(memory: Source, start: int, stop: int) -> Iterator[tuple[int, int, Kind]]:
    """Data of [start, stop) and zeros, told apart page by page."""
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
    yield from _ranges(first, PAGE, _zero(content), start, stop)


def _described(memory: Source, start: int, stop: int) -> Iterator[tuple[int, int, Kind]]:
    assert isinstance(memory, Kdump)
    for address, zero in memory.zeros(start, stop):
        yield from _ranges(address, memory.block, zero, start, stop)


def _zero(content: bytes | bytearray | memoryview) -> npt.NDArray[np.bool_]:
    """Which pages hold zeros alone."""
    return np.logical_not(np.frombuffer(content, np.uint64).reshape(-1, PAGE // 8).any(axis=1))


def _ranges(first: int, grain: int, zero: npt.NDArray[np.bool_], start: int, stop: int) -> Iterator[tuple[int, int, Kind]]:
    """Blocks of ``grain`` bytes from ``first`` on as ranges of [start, stop)."""
    edges = [0, *(np.flatnonzero(zero[1:] != zero[:-1]) + 1).tolist(), len(zero)]
    for low, high in pairwise(edges):
        kind = Kind.ZERO if zero[low] else Kind.DATA
        yield max(start, first + low * grain), min(stop, first + high * grain), kind
