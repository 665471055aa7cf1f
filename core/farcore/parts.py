"""The parts of a kdump-compressed dump: one file, or the files of a set that makedumpfile --split wrote.

Each has all of the bitmaps, and the descriptors of its own frames alone. What the bitmaps promise and the files have not -
a part that is missing, a file that was cut off - is taken out of the map.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from farcore.arrays import Array
from farcore.diskdump import INCOMPLETE, Diskdump
from farcore.errors import BadDumpError
from farcore.pagemap import PageMap
from farcore.source import Source

# Descriptors of a dump that was cut off, looked at in one go: 1.5 MiB.
_SCAN: Final = 1 << 16
# Lost stretches of an incomplete dump; a sound writer leaves one.
MAX_LOST: Final = 1 << 16

# A page descriptor: offset and size of what is stored, its flags, and the page's own.
ROW: Final = {
    order: np.dtype([("offset", f"{sign}u8"), ("size", f"{sign}u4"), ("flags", f"{sign}u4"), ("page_flags", f"{sign}u8")])
    for order, sign in (("LE", "<"), ("BE", ">"))
}
ONE_ROW: Final = {"LE": struct.Struct("<QII8x"), "BE": struct.Struct(">QII8x")}
ROW_SIZE: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One file: frames from physical address ``start`` up to ``stop``; ``rank`` dumped frames of the set come before."""

    below: Source
    header: Diskdump
    start: int
    stop: int
    rank: int

    def descriptors(self, rank: int, number: int) -> Array[np.void]:
        """The page descriptors of ``number`` frames; FaultError where the file has them not."""
        return np.frombuffer(self.below.pread(self.descriptor_at(rank), number * ROW_SIZE), ROW[self.header.data])

    def descriptor_at(self, rank: int) -> int:
        """Where in the file the descriptor of the frame with that rank stands."""
        return self.header.descriptors_at + (rank - self.rank) * ROW_SIZE


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Index:
    """What reading the bitmaps came to, worth keeping: the map, and for each part the dumped frames before it.

    ``problems`` is a sentence for each thing that is missing: the dump is incomplete.
    """

    pages: PageMap
    ranks: tuple[int, ...]
    problems: tuple[str, ...] = ()


def opened(below: Sequence[Source], index: Index | None) -> tuple[list[Part], Index]:
    """The parts, in the order of their frames, and their index, made unless it is given; BadDumpError for what is no set."""
    headers = sorted(((Diskdump.read(each), each) for each in below), key=lambda two: two[0].split or (0, 0))
    first, source = headers[0]
    for header, _ in headers[1:]:
        if _set(header) != _set(first) or header.split is None:
            raise BadDumpError("the files are not parts of one dump: name the parts of one set", term="diskdump")
    whole = None if index is not None else PageMap.read(first, source)
    parts = []
    for i, (header, each) in enumerate(headers):
        low, high = (header.base + frame * header.block for frame in header.split or (0, header.max_frame))
        rank = index.ranks[i] if index is not None else whole.before(low) if whole is not None else 0
        parts.append(Part(each, header, low, high, rank))
    if whole is not None:
        index = _index(parts, whole)
    assert index is not None
    return parts, index


def _set(header: Diskdump) -> tuple[object, ...]:
    """What all parts of a set have in common."""
    return header.bits, header.data, header.machine, header.block, header.max_frame, header.base, header.split is None


def _index(parts: Sequence[Part], whole: PageMap) -> Index:
    """What is left of the map that the bitmaps promise, by what the files really have."""
    problems, lost = _gaps(parts, whole), list(_uncovered(parts, whole))
    for part in parts:
        lost += _lost(part, whole, problems)
    return Index(whole.without(sorted(lost)), tuple(part.rank for part in parts), tuple(problems))


def _uncovered(parts: Sequence[Part], pages: PageMap) -> Iterator[tuple[int, int]]:
    """Ranks of the frames that no part of the set has."""
    edges = [(0, 0), *((part.start, part.stop) for part in parts), (pages.size, pages.size)]
    for (_, end), (start, _) in pairwise(edges):
        if pages.before(end) < pages.before(start):
            yield pages.before(end), pages.before(start)


def _gaps(parts: Sequence[Part], pages: PageMap) -> list[str]:
    """A sentence where parts are missing; BadDumpError where two claim the same frames."""
    for one, other in pairwise(parts):
        if one.stop > other.start:
            raise BadDumpError("two parts of the set have the same page frames: name each part once", term="diskdump")
    missing = sum(end - first for first, end in _uncovered(parts, pages))
    if not missing:
        return []
    return [f"parts of the set are missing, and {missing:,} pages with them: put all parts into one directory"]


def _lost(part: Part, pages: PageMap, problems: list[str]) -> list[tuple[int, int]]:
    """Ranks of the frames whose descriptors or bytes a cut file has not; all are looked at if the last are lost."""
    end = pages.before(part.stop)
    if end <= part.rank or (not part.header.status & INCOMPLETE and _ends(part, end)):
        return []
    lost: list[tuple[int, int]] = []
    for rank in range(part.rank, end, _SCAN):
        number = min(_SCAN, end - rank)
        bad = np.flatnonzero(np.diff(np.concatenate([[True], _sound(part, rank, number), [True]])))
        for first, stop in (bad.reshape(-1, 2) + rank).tolist():
            if lost and lost[-1][1] == first:
                lost[-1] = lost[-1][0], stop
            else:
                lost.append((first, stop))
        if len(lost) > MAX_LOST:
            raise BadDumpError("its page descriptors lead nowhere: it is damaged, copy it again", term="diskdump")
    if missing := sum(stop - first for first, stop in lost):
        problems.append(f"{missing:,} of {end - part.rank:,} pages are past the end of the file: an incomplete dump")
    return lost


def _ends(part: Part, end: int) -> bool:
    """Whether the file has the bytes of its last pages: the last of those that are not all the one page of zeros."""
    for stop in range(end, part.rank, -_SCAN):
        first = max(part.rank, stop - _SCAN)
        if not _sound(part, first, stop - first).all():
            return False
        offsets = part.descriptors(first, stop - first)["offset"]
        if (offsets != offsets[0]).any():
            return True
    return True


def _sound(part: Part, rank: int, number: int) -> Array[np.bool_]:
    """Which of these frames have a descriptor that leads to bytes of the file."""
    here = max(0, min(number, (part.below.size - part.descriptor_at(rank)) // ROW_SIZE))
    sound = np.zeros(number, np.bool_)
    if here:
        rows = part.descriptors(rank, here)
        size = np.uint64(part.below.size)
        sound[:here] = (
            (rows["offset"] != 0) & (rows["offset"] < size) & (rows["size"] <= size - np.minimum(rows["offset"], size))
        )
    return sound
