"""Kdump: the dumped pages of a kdump-compressed dump, one after the other in the order of their frames, decompressed on demand.

So physical memory is a layout over it, and so is an ELF core (vmcore.py): runs, as with every other form. What is read in
sequence there has its descriptors in sequence here, and mostly its stored bytes as well, however fragmented the memory is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Final

import numpy as np

from farcore import codecs
from farcore.arrays import Array
from farcore.codecs import Page
from farcore.errors import FaultError
from farcore.pagecache import PageCache
from farcore.parts import ONE_ROW, ROW_SIZE, Index, Part, opened
from farcore.source import Source, demand
from farcore.space import Space

# Pages that are read and decompressed in one go: 1 MiB of 4 KiB pages.
BATCH: Final = 256
# Descriptors that are kept together.
_ROWS: Final = 170
# Pages of a read that are kept in the cache.
KEPT: Final = 16
# Stored pages no further apart than this are read as one: a read costs as much as copying that many bytes.
_GAP: Final = 4096
_SPAN: Final = 4 << 20

_numbers = count()

# A page descriptor: offset and size of what is stored, and its flags.
_Row = tuple[int, int, int]


class Kdump(Source):
    """The dumped pages; FaultError (physical, unreadable) for one that is damaged, with its address."""

    def __init__(self, parts: Sequence[Part], index: Index, cache: PageCache | None = None) -> None:
        self.parts, self.index, self.pages = tuple(parts), index, index.pages
        self.header = parts[0].header
        self.block = self.header.block
        self.size = self.pages.end
        self._ranks = [part.rank for part in parts]
        self._cache = cache or PageCache(0)
        # Of this Kdump, in a cache that others share.
        self._number = next(_numbers)
        # Pages of zeros share one descriptor's bytes (makedumpfile 1.7.2: write_kdump_pages_and_bitmap_cyclic): of each part,
        # by its rank, those seen last. Whoever has them is decompressed no more, and is not in the cache many times over.
        self._zero: dict[int, _Row] = {}
        self._nothing = bytes(self.block)

    @classmethod
    def open(cls, below: Sequence[Source], *, index: Index | None = None, cache: PageCache | None = None) -> Kdump:
        """The dump in one file, or in all files of a set, in any order; BadDumpError where they are none.

        ``index`` is that of the same files, where it was kept. What is missing is absent, and said in its ``problems``.
        """
        return cls(*opened(below, index), cache)

    def through(self, below: Callable[[Source], Source]) -> Kdump:
        """The same dump and the same cached pages, its files read through what ``below`` makes of them."""
        other = Kdump([replace(part, below=below(part.below)) for part in self.parts], self.index, self._cache)
        other._number, other._zero = self._number, self._zero
        return other

    def memory(self) -> Space:
        """Physical memory by address."""
        return Space(self, self.pages.layout())

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at ``offset`` of the dumped pages."""
        demand(self, offset, length)
        if not length:
            return memoryview(b"")
        rank, lead = divmod(offset, self.block)
        if lead + length <= self.block:
            return memoryview(self._page(rank))[lead : lead + length].toreadonly()
        found: list[Page | memoryview] = list(self._pages(rank, -(-(lead + length) // self.block)))
        found[0] = memoryview(found[0])[lead:]
        found[-1] = memoryview(found[-1])[: (lead + length - 1) % self.block + 1]
        return memoryview(b"".join(found))

    def _page(self, rank: int) -> Page:
        """The one page that a short read needs, by the shortest way: nearly all reads of a debugger are such."""
        held = self._cache.get((self._number, rank))
        if held is not None:
            return held
        part = self._part(rank)
        try:
            row = offset, size, flags = self._row(part, rank)
            if row == self._zero.get(part.rank):
                return self._nothing
            if not offset or size > self.block:  # of offset 0: makedumpfile got no further
                raise self._unreadable(rank)
            stored = bytes(part.below.pread(offset, size))
        except FaultError as error:
            raise self._unreadable(rank) from error
        read = codecs.decompressor(flags)
        found = stored if read is None else read(stored, self.block)
        if found is None or len(found) != self.block:
            raise self._unreadable(rank)
        if found == self._nothing:
            self._zero[part.rank] = row
            return self._nothing
        self._cache.put((self._number, rank), found)
        return found

    def _row(self, part: Part, rank: int) -> _Row:
        """The descriptor of one frame: of a page's worth of them, which are kept, for few pages lead to all that is read."""
        nth = (rank - part.rank) % _ROWS
        key = (self._number, nth - rank - 1)  # no rank is negative
        rows = self._cache.get(key)
        if rows is None:
            at = part.descriptor_at(rank - nth)
            try:
                rows = bytes(part.below.pread(at, max((nth + 1) * ROW_SIZE, min(_ROWS * ROW_SIZE, part.below.size - at))))
            except FaultError:  # the storage failed, perhaps at another's
                rows, nth = bytes(part.below.pread(part.descriptor_at(rank), ROW_SIZE)), 0
            else:
                self._cache.put(key, rows)
        row: _Row = ONE_ROW[part.header.data].unpack_from(rows, nth * ROW_SIZE)
        return row

    def _part(self, rank: int) -> Part:
        return self.parts[bisect_right(self._ranks, rank) - 1]

    def _pages(self, rank: int, number: int) -> list[Page]:
        # A long read goes on elsewhere: its pages would only drive out those that are read again and again.
        keys = [(self._number, rank + i) for i in range(number)] if number <= KEPT else []
        held = [page for key in keys if (page := self._cache.get(key)) is not None]
        if held and len(held) == number:
            return held
        found: list[Page] = []
        for part, first, few in self._batches(rank, number):
            found += self._stored(part, first, few)
        for key, page in zip(keys, found, strict=False):
            self._cache.put(key, page)
        return found

    def _batches(self, rank: int, number: int) -> Iterator[tuple[Part, int, int]]:
        """The frames by part, at most BATCH at a time."""
        end = rank + number
        while rank < end:
            i = bisect_right(self._ranks, rank) - 1
            stop = min(end, rank + BATCH, *self._ranks[i + 1 : i + 2])
            yield self.parts[i], rank, stop - rank
            rank = stop

    def _stored(self, part: Part, rank: int, number: int) -> list[Page]:
        """The pages of these frames."""
        try:
            descriptors = part.descriptors(rank, number)
        except FaultError as error:
            raise self._unreadable(rank, number) from error
        # Of offset 0: makedumpfile got no further.
        bad = np.flatnonzero((descriptors["offset"] == 0) | (descriptors["size"] > self.block))
        if len(bad):
            raise self._unreadable(rank + int(bad[0]))
        rows = _rows(descriptors)
        zero = self._zero.get(part.rank)
        pages: dict[_Row, Page] = {} if zero is None else {zero: self._nothing}
        for span in _spans(sorted(set(rows) - pages.keys())):
            try:
                if (lost := self._decompress(part, span, pages)) is None:
                    continue
            except FaultError as error:
                raise self._unreadable(rank + rows.index(span[0])) from error
            raise self._unreadable(rank + rows.index(lost))
        if zero is None and (row := next((row for row, page in pages.items() if page == self._nothing), None)) is not None:
            self._zero[part.rank] = row
        return [pages[row] for row in rows]

    def _decompress(self, part: Part, span: list[_Row], into: dict[_Row, Page]) -> _Row | None:
        """Neighbours in the file, read as one; the first that cannot be decompressed."""
        begin, block, last = span[0][0], self.block, -1
        stored = bytes(part.below.pread(begin, max(offset + size for offset, size, _ in span) - begin))
        read = None
        for row in span:
            offset, size, flags = row
            if flags != last:
                read, last = codecs.decompressor(flags), flags
            piece = stored[offset - begin : offset - begin + size]
            page = piece if read is None else read(piece, block)
            if page is None or len(page) != block:
                return row
            into[row] = page
        return None

    def zeros(self, rank: int, number: int) -> Array[np.bool_]:
        """Which of these frames hold zeros alone: a truth for each.

        By the descriptors where they tell: what a codec made no smaller than its share of a page of zeros is none, and pages
        that share their bytes are looked at once. What cannot be read counts as data.
        """
        zero = np.zeros(number, np.bool_)
        at = 0
        for part, first, few in self._batches(rank, number):
            zero[at : at + few] = self._zeros(part, first, few)
            at += few
        return zero

    def _zeros(self, part: Part, rank: int, number: int) -> Array[np.bool_]:
        zero = np.zeros(number, np.bool_)
        with suppress(FaultError):
            found = part.descriptors(rank, number)
            doubtful = np.flatnonzero(
                (found["offset"] > 0) & (found["size"] <= codecs.most_of_zeros(found["flags"], self.block))
            )
            rows = _rows(found[doubtful])
            pages = self._readable(part, sorted(set(rows)))
            of_zeros = {row for row, page in pages.items() if page == self._nothing}
            zero[doubtful] = [row in of_zeros for row in rows]
        return zero

    def _readable(self, part: Part, wanted: list[_Row]) -> dict[_Row, Page]:
        """What can be read of these."""
        pages: dict[_Row, Page] = {}
        for span in _spans(wanted):
            try:
                while span and (lost := self._decompress(part, span, pages)) is not None:
                    span = span[span.index(lost) + 1 :]
            except FaultError:
                for row in span:
                    with suppress(FaultError):
                        self._decompress(part, [row], pages)
        return pages

    def _unreadable(self, rank: int, number: int = 1) -> FaultError:
        address = self.pages.address(rank * self.block)
        return FaultError(address=address, length=number * self.block, space="physical", kind="unreadable")


def _rows(descriptors: Array[np.void]) -> list[_Row]:
    return list(zip(*(descriptors[name].tolist() for name in ("offset", "size", "flags")), strict=True))


def _spans(wanted: list[_Row]) -> Iterator[list[_Row]]:
    """Neighbours in the file, in its order, as stretches that are read as one."""
    if not wanted:
        return
    begin, end, first = wanted[0][0], wanted[0][0], 0
    for i, (offset, size, _) in enumerate(wanted):
        if offset > end + _GAP or offset + size - begin > _SPAN:
            if first < i:
                yield wanted[first:i]
            begin, first = offset, i
        end = offset + size
    yield wanted[first:]
