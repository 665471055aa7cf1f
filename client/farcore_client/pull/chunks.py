"""Chunks: which parts of a resource are missing, under way, whole, or proved; and which to fetch next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from farcore.arrays import Array
from farcore.source import Extent

# What a journal's entry stands for. A cut connection costs less than this anew; 1 TiB has a million of them.
CHUNK: Final = 1 << 20
PAGE: Final = 4096


class Step(IntEnum):
    """How far a chunk has come; WHOLE is checked and written, PROVED is on the disk and in the journal."""

    MISSING = 0
    UNDER_WAY = 1
    WHOLE = 2
    PROVED = 3


class Work(NamedTuple):
    """The positions [start, stop) of the resource, to be fetched in one go; ``start`` is a chunk's.

    ``shift``: pages of memory begin at positions that are so many bytes past a multiple of PAGE (QEMU's dumps).
    """

    start: int
    stop: int
    shift: int = 0

    def items(self, at: int = 0) -> list[Extent]:
        """What to ask for: from the first page on, and last what lies before it; without the first ``at`` bytes."""
        return list(self.places(at, self.length - at))

    @property
    def length(self) -> int:
        """Bytes."""
        return self.stop - self.start

    @property
    def lead(self) -> int:
        """Bytes before the first page."""
        return min(self.shift, self.length)

    def places(self, at: int, length: int) -> Iterator[Extent]:
        """Where in the resource the bytes [at, at + length) of the items' string belong."""
        body = self.length - self.lead
        if at < min(body, at + length):
            yield Extent(self.start + self.lead + at, min(length, body - at))
        if at + length > body:
            low = max(at, body)
            yield Extent(self.start + low - body, at + length - low)

    def whole(self, at: int) -> tuple[int, int]:
        """The chunks [first, last) that have all their bytes when the first ``at`` bytes of the string have come."""
        first = self.start // CHUNK
        if at >= self.length:
            return first, -(-self.stop // CHUNK)
        reached = (self.start + self.lead + min(at, self.length - self.lead)) // CHUNK
        return (first + 1 if self.lead else first), max(reached, first)


class Chunks:
    """The chunks of a resource of ``size`` bytes."""

    def __init__(self, size: int, proved: Iterable[tuple[int, int]] = ()) -> None:
        self.size = size
        self.steps: Array[np.uint8] = np.zeros(-(-size // CHUNK), np.uint8)
        for first, count in proved:
            self.steps[first : first + count] = Step.PROVED

    @property
    def done(self) -> bool:
        """Whether every chunk is proved."""
        return bool((self.steps == Step.PROVED).all())

    @property
    def busy(self) -> bool:
        """Whether any is under way."""
        return bool((self.steps == Step.UNDER_WAY).any())

    @property
    def missing(self) -> int:
        """Bytes of all chunks that are missing or under way."""
        return self._bytes(self.steps < Step.WHOLE)

    @property
    def proved(self) -> int:
        """Bytes of all that are proved."""
        return self._bytes(self.steps == Step.PROVED)

    def next(self, most: int, shift: int = 0) -> Work | None:
        """The first missing run, ``most`` bytes of it (but a chunk at least), now under way; None where none is missing."""
        missing = self.steps == Step.MISSING
        if not missing.any():
            return None
        first = int(missing.argmax())
        run = missing[first : first + max(1, most // CHUNK)]
        last = first + (len(run) if run.all() else int(run.argmin()))
        self.steps[first:last] = Step.UNDER_WAY
        return Work(first * CHUNK, min(last * CHUNK, self.size), shift)

    def arrived(self, work: Work, at: int) -> None:
        """The first ``at`` bytes of the work's string are checked and written."""
        first, last = work.whole(at)
        steps = self.steps[first:last]
        steps[steps == Step.UNDER_WAY] = Step.WHOLE

    def give_back(self, work: Work) -> None:
        """What of it has not become whole is missing again."""
        steps = self.steps[work.start // CHUNK : -(-work.stop // CHUNK)]
        steps[steps == Step.UNDER_WAY] = Step.MISSING

    def runs(self, step: Step) -> list[tuple[int, int]]:
        """The (first, count) of each row of chunks that are at ``step``."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.steps == step, [False]])))
        return [(low, high - low) for low, high in edges.reshape(-1, 2).tolist()]

    def prove(self, runs: Iterable[tuple[int, int]]) -> None:
        """They are in the journal."""
        for first, count in runs:
            self.steps[first : first + count] = Step.PROVED

    def _bytes(self, which: Array[np.bool_]) -> int:
        short = len(self.steps) * CHUNK - self.size if len(which) and which[-1] else 0
        return int(which.sum()) * CHUNK - short
