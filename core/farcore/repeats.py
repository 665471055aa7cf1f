"""Repeats: pages of an answer that stand in it once before: named, not sent again.

A machine's memory has many pages twice - file contents in the page cache and in an initramfs, buffers, freed copies - far
more than a megabyte apart, where zstd does not look. One table per answer foretells where a page was seen; what it says is
compared byte for byte before it is believed, so that no digest is trusted with a dump's truth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import xxhash

from farcore.frames import Entry, Found
from farcore.gather import GRAIN, Draft, Gathered

# Places of a table, 16 bytes each: twice the pages of the largest batch. A page has two; from a third one it takes one.
MAX_SLOTS: Final = 1 << 19
# The low bits of an entry: which page of the answer. What is above them is of the page's digest.
_PAGE: Final = MAX_SLOTS - 1

# Whether the bytes at an offset of the source are these; False also where that cannot be said without waiting.
Same = Callable[[int, memoryview], bool]


class _Read(NamedTuple):
    at: int
    length: int
    offset: int


class _Row(NamedTuple):
    """Pages [low, high) of a stretch of data that stand one after the other from ``source`` on, at ``offset`` of the file."""

    low: int
    high: int
    source: int
    offset: int


class Repeats:
    """What has been seen of one answer of ``total`` bytes; frames may be shown in any order, one at a time."""

    def __init__(self, total: int) -> None:
        slots = min(MAX_SLOTS, 2 << (total // GRAIN).bit_length())
        self._mask = slots - 1
        # Untouched memory of numpy costs nothing until it is written to. An offset of 0 is none: they are one more than said.
        self._entry, self._offset = (np.zeros(slots, np.uint64).data for _ in range(2))

    def named(self, draft: Draft, gathered: Gathered, same: Same) -> Gathered:
        """The same without the pages that came before, each row of them an entry of kind SAME."""
        reads = _reads(draft)
        runs: list[Entry] = []
        kept: list[memoryview] = []
        at, used = draft.at, 0
        for kind, length, _ in gathered.runs:
            if kind == Found.DATA:
                self._divide(at, gathered.content[used : used + length], reads, same, runs, kept)
                used += length
            else:
                runs.append(Entry(kind, length))
            at += length
        if sum(map(len, kept)) == len(gathered.content):
            return gathered
        return Gathered(runs, memoryview(b"".join(kept)))

    def _divide(
        self, at: int, content: memoryview, reads: list[_Read], same: Same, runs: list[Entry], kept: list[memoryview]
    ) -> None:
        lead = -at % GRAIN
        done = 0
        for low, high, source, offset in self._rows(at + lead, content[lead:], reads):
            begin, end = lead + low * GRAIN, lead + high * GRAIN
            if not same(offset, content[begin:end]):
                continue
            if done < begin:
                runs.append(Entry(Found.DATA, begin - done))
                kept.append(content[done:begin])
            runs.append(Entry(Found.SAME, end - begin, source))
            done = end
        if done < len(content):
            runs.append(Entry(Found.DATA, len(content) - done))
            kept.append(content[done:])

    def _rows(self, at: int, content: memoryview, reads: list[_Read]) -> list[_Row]:
        """The rows of whole pages that seem to have been seen; all pages are known from now on."""
        rows: list[_Row] = []
        starts = [read.at for read in reads]
        for page in range(len(content) // GRAIN):
            begin = at + page * GRAIN
            read = reads[bisect_right(starts, begin) - 1]
            offset = read.offset + begin - read.at
            if offset < 0 or begin + GRAIN > read.at + read.length:
                continue  # composed by farcore, or of two places of the file
            digest = xxhash.xxh3_64_intdigest(content[page * GRAIN : (page + 1) * GRAIN])
            slot, source = self._find(digest, begin)
            if source is not None:
                _append(rows, page, source, self._offset[slot] - 1, begin)
            else:
                self._entry[slot], self._offset[slot] = digest & ~_PAGE | begin // GRAIN & _PAGE, offset + 1
        return rows

    def _find(self, digest: int, begin: int) -> tuple[int, int | None]:
        """Where in the answer such a page stood before ``begin``, and its place; without one the place to take."""
        first = digest & self._mask
        for slot in (first, first ^ 1):
            entry = self._entry[slot]
            if self._offset[slot] and not (entry ^ digest) & ~_PAGE and (source := (entry & _PAGE) * GRAIN) < begin:
                return slot, source
        return (first ^ 1 if self._offset[first] else first), None


def _append(rows: list[_Row], page: int, source: int, offset: int, begin: int) -> None:
    if rows:
        low, high, first, place = rows[-1]
        length = (high - low) * GRAIN
        # The source of a row ends before the row begins, so that a reader has all of it.
        before = source + GRAIN <= begin - length
        if high == page and first + length == source and place + length == offset and before:
            rows[-1] = _Row(low, page + 1, first, place)
            return
    rows.append(_Row(page, page + 1, source, offset))


def _reads(draft: Draft) -> list[_Read]:
    """Where in the answer each read's bytes stand."""
    found: list[_Read] = []
    at, reads = draft.at, iter(draft.reads)
    for kind, length, _ in draft.runs:
        end = at + length
        while kind == Found.DATA and at < end:
            offset, size = next(reads)
            found.append(_Read(at, size, offset))
            at += size
        at = end
    return found
