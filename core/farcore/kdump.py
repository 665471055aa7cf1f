"""Kdump: a kdump-compressed dump as physical memory: the position is the physical address, pages are decompressed on demand.

A set that makedumpfile --split wrote is one Kdump over its parts: each has all of the bitmaps, and the descriptors of its
own frames alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from farcore import codecs
from farcore.diskdump import INCOMPLETE, Diskdump
from farcore.errors import BadDumpError, FaultError
from farcore.layout import Layout, absent, fault
from farcore.pagecache import Page, PageCache
from farcore.pagemap import Frames, PageMap
from farcore.runs import Kind
from farcore.source import Extent, Source

# Pages that are read and decompressed in one go: 1 MiB of 4 KiB pages.
BATCH: Final = 256
# Pages of a read that are kept in the cache.
KEPT: Final = 16
# Stored pages no further apart than this are read as one: a read costs as much as copying that many bytes.
_GAP: Final = 4096
_SPAN: Final = 4 << 20
# Descriptors of a dump that was cut off, looked at in one go: 1.5 MiB.
_SCAN: Final = 1 << 16
# Lost stretches of an incomplete dump; a sound writer leaves one.
MAX_LOST: Final = 1 << 16

# Stored pages whose zeros are remembered while a map is made.
MAX_KNOWN: Final = 1 << 14

_numbers = count()

# A page descriptor: offset and size of what is stored, and its flags.
_Row = tuple[int, int, int]
_ROW: Final = {"LE": struct.Struct("<QII8x"), "BE": struct.Struct(">QII8x")}
_ROW_SIZE: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One file: frames from physical address ``start`` up to ``stop``; ``rank`` dumped frames of the set come before."""

    below: Source
    header: Diskdump
    start: int
    stop: int
    rank: int

    def descriptors(self, rank: int, number: int) -> npt.NDArray[np.void]:
        """The page descriptors of ``number`` frames; FaultError where the file has them not."""
        content = self.below.pread(self.descriptor_at(rank), number * _ROW_SIZE)
        return np.frombuffer(content, _descriptor(self.header.data))

    def descriptor_at(self, rank: int) -> int:
        """Where in the file the descriptor of the frame with that rank stands."""
        return self.header.descriptors_at + (rank - self.rank) * _ROW_SIZE


def _descriptor(data: str) -> np.dtype[np.void]:
    order = "<" if data == "LE" else ">"
    return np.dtype([("offset", f"{order}u8"), ("size", f"{order}u4"), ("flags", f"{order}u4"), ("page_flags", f"{order}u8")])


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """What reading the bitmaps came to, worth keeping: the map, and for each part the dumped frames before it.

    ``problems`` is a sentence for each thing that is missing: the dump is incomplete.
    """

    pages: PageMap
    ranks: tuple[int, ...]
    problems: tuple[str, ...] = ()


class Kdump(Source):
    """Physical memory by address; FaultError (absent, excluded; unreadable for a page that is damaged)."""

    def __init__(self, parts: Sequence[Part], index: Index, cache: PageCache | None = None) -> None:
        self.parts, self.index, self.pages = tuple(parts), index, index.pages
        self.header = parts[0].header
        self.block, self.base = self.header.block, self.header.base
        self.size = self.pages.size
        self._cache = cache or PageCache(0)
        # Of this Kdump, in a cache that others share.
        self._number = next(_numbers)

    @classmethod
    def open(cls, below: Sequence[Source], *, index: Index | None = None, cache: PageCache | None = None) -> Kdump:
        """The dump in one file, or in all files of a set, in any order; BadDumpError where they are none.

        ``index`` is that of the same files, where it was kept. What is missing is absent, and said in its ``problems``.
        """
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
        return cls(parts, index, cache)

    def through(self, below: Callable[[Source], Source]) -> Kdump:
        """The same dump and the same cached pages, its files read through what ``below`` makes of them."""
        other = Kdump([replace(part, below=below(part.below)) for part in self.parts], self.index, self._cache)
        other._number = self._number
        return other

    def layout(self) -> Layout:
        """Physical memory, each byte at its own address here."""
        return Layout("physical", self.size, self.pages.runs)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at physical address ``offset``."""
        if offset < 0 or length < 0 or offset > self.size:
            raise absent(offset, length, "physical")
        stop = offset + length
        if stop > self.size:
            raise absent(self.size, stop - self.size, "physical")
        lead = (offset - self.base) % self.block
        if length and lead + length <= self.block:
            return memoryview(self._page(offset - lead, offset, length))[lead : lead + length].toreadonly()
        for run in self.pages.runs.walk(offset, stop):
            if run.kind is not Kind.DATA:
                raise fault(run, "physical")
        found: list[Page] = []
        for frames in self._batches(offset, stop):
            found += self._read(frames)
        if not found:
            return memoryview(b"")
        found[0] = memoryview(found[0])[lead:]
        found[-1] = memoryview(found[-1])[: (stop - self.base - 1) % self.block + 1]
        return memoryview(b"".join(found))

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """One after the other: pages that several extents need are in the cache."""
        return [self.pread(offset, length) for offset, length in extents]

    def _page(self, page: int, offset: int, length: int) -> Page:
        """The one page that a short read needs, by the shortest way: nearly all reads of a debugger are such."""
        held = self._cache.get((self._number, page))
        if held is not None:
            return held
        rank = self.pages.rank_of(offset)
        if rank is None:
            raise fault(next(self.pages.runs.walk(offset, offset + length)), "physical")
        part = next(part for part in self.parts if part.start <= page < part.stop)
        try:
            row = _ROW[part.header.data].unpack(part.below.pread(part.descriptor_at(rank), _ROW_SIZE))
            if not row[0] > 0 or row[1] > self.block:
                raise self._unreadable(page)
            stored: Page = part.below.pread(row[0], row[1])
        except FaultError as error:
            raise self._unreadable(page) from error
        found = self._content(stored, row[2], page)
        self._cache.put((self._number, page), found)
        return found

    def _content(self, stored: Page, flags: int, page: int) -> Page:
        """What is stored of a page, decompressed; FaultError for what does not come to a block."""
        decompress = codecs.decompressor(flags)
        content = stored if decompress is None else decompress(memoryview(stored), self.block)
        if content is None or len(content) != self.block:
            raise self._unreadable(page)
        return content

    def zeros(self, start: int, stop: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Which dumped blocks of [start, stop) hold zeros alone: the address of the first, and a truth for each after it.

        By the descriptors where they tell: what a codec made no smaller than an eighth is no page of zeros, and pages that
        share their bytes are looked at once. What cannot be read counts as data.
        """
        known: dict[_Row, bool] = {}
        for part, (address, number, rank) in self._batches(start, stop):
            zero = np.zeros(number, np.bool_)
            with suppress(FaultError):
                found = part.descriptors(rank, number)
                raw = (found["flags"] & codecs.COMPRESSED == 0) & (found["size"] == self.block)
                doubtful = (found["offset"] > 0) & (raw | (found["size"] <= self.block // 8))
                where = np.flatnonzero(doubtful).tolist()
                columns = (found[name][doubtful].tolist() for name in ("offset", "size", "flags"))
                rows: list[_Row] = list(zip(*columns, strict=True))
                for row, page in self._readable(part, {row: address for row in rows if row not in known}):
                    known[row] = not np.frombuffer(page, np.uint8).any()
                zero[where] = [known.get(row, False) for row in rows]
            yield address, zero
            if len(known) > MAX_KNOWN:
                known.clear()

    def _readable(self, part: Part, missing: dict[_Row, int]) -> Iterator[tuple[_Row, Page]]:
        """``_decompressed`` without those that cannot be."""
        try:
            yield from list(self._decompressed(part, missing))
        except FaultError:
            for row, address in missing.items():
                with suppress(FaultError):
                    yield from self._decompressed(part, {row: address})

    def _batches(self, start: int, stop: int) -> Iterator[tuple[Part, Frames]]:
        """What [start, stop) touches, by part, in batches."""
        if start == stop:
            return
        for address, number, rank in self.pages.frames(start, stop):
            end = address + number * self.block
            for part in self.parts:
                low, high = max(address, part.start), min(end, part.stop)
                for at in range(low, high, BATCH * self.block):
                    frames = min(BATCH, (high - at) // self.block)
                    yield part, Frames(at, frames, rank + (at - address) // self.block)

    def _read(self, wanted: tuple[Part, Frames]) -> list[Page]:
        part, (address, number, rank) = wanted
        addresses = range(address, address + number * self.block, self.block)
        # A long read goes on elsewhere: its pages would only drive out those that are read again and again.
        keeps = number <= KEPT
        if keeps:
            held = [page for at in addresses if (page := self._cache.get((self._number, at))) is not None]
            if len(held) == number:
                return held
        try:
            descriptors = part.descriptors(rank, number)
        except FaultError as error:
            raise self._unreadable(address, number) from error
        # Pages that are all zeros share one descriptor's bytes (makedumpfile 1.7.2: write_kdump_pages_and_bitmap_cyclic).
        rows: list[_Row] = list(zip(*(descriptors[name].tolist() for name in ("offset", "size", "flags")), strict=True))
        missing: dict[_Row, int] = {}
        for at, row in zip(addresses, rows, strict=True):
            if row[0] == 0 or row[1] > self.block:  # of offset 0: makedumpfile got no further
                raise self._unreadable(at)
            missing.setdefault(row, at)
        pages = dict(self._decompressed(part, missing))
        if keeps:
            for at, row in zip(addresses, rows, strict=True):
                self._cache.put((self._number, at), pages[row])
        return [pages[row] for row in rows]

    def _decompressed(self, part: Part, missing: dict[_Row, int]) -> Iterator[tuple[_Row, Page]]:
        """Stored pages, each with the physical address that it is needed for, to what they hold."""
        for span in _spans(sorted(missing)):
            begin = span[0][0]
            try:
                stored = part.below.pread(begin, max(offset + size for offset, size, _ in span) - begin)
            except FaultError as error:
                raise self._unreadable(missing[span[0]]) from error
            for row in span:
                offset, size, flags = row
                content = self._content(stored[offset - begin : offset - begin + size], flags, missing[row])
                # Held in the cache, a view would hold the whole span.
                yield row, content if flags & codecs.COMPRESSED or len(span) == 1 else bytes(content)

    def _unreadable(self, address: int, number: int = 1) -> FaultError:
        return FaultError(address=address, length=number * self.block, space="physical", kind="unreadable")


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


def _sound(part: Part, rank: int, number: int) -> npt.NDArray[np.bool_]:
    """Which of these frames have a descriptor that leads to bytes of the file."""
    here = max(0, min(number, (part.below.size - part.descriptor_at(rank)) // _ROW_SIZE))
    sound = np.zeros(number, np.bool_)
    if here:
        rows = part.descriptors(rank, here)
        size = np.uint64(part.below.size)
        sound[:here] = (
            (rows["offset"] != 0) & (rows["offset"] < size) & (rows["size"] <= size - np.minimum(rows["offset"], size))
        )
    return sound


def _spans(wanted: list[_Row]) -> Iterator[list[_Row]]:
    """Neighbours in the file, in its order, as stretches that are read as one."""
    span: list[_Row] = []
    for row in wanted:
        if span and (row[0] > span[-1][0] + span[-1][1] + _GAP or row[0] + row[1] - span[0][0] > _SPAN):
            yield span
            span = []
        span.append(row)
    if span:
        yield span
