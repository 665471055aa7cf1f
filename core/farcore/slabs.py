"""Slabs: which page frames the kernel's allocator has filled with objects of one kind, as the struct pages tell.

What a debugger follows from one object to the next - tasks, their files, their mounts - lies scattered over memory, but all
of a kind is in the slabs of one cache, and the struct page of each says which (mm/slab.h). PG_slab and where a tail page names
its head are in VMCOREINFO; which word names the cache has changed (6.2), and is known by what stands there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from farcore.errors import FaultError
from farcore.regions import Regions
from farcore.runs import U64, distinct
from farcore.source import Source
from farcore.vmcoreinfo import Vmcoreinfo

_PAGE: Final = 12
# struct page without debugging; with it the words are elsewhere.
SIZE: Final = 64
# Struct pages that are looked at: those of 3 GiB.
MOST: Final = 48 << 20
# Frames of one cache that are named at once, those nearest by: inodes may fill gigabytes.
MOST_KIN: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Slabs:
    """``frame``: the page frames of slabs, ascending; ``cache``: the address of each one's kmem_cache."""

    frame: U64
    cache: U64

    @classmethod
    def of(cls, regions: Regions, known: Vmcoreinfo, memory: Source) -> Self | None:
        """What the struct pages in ``memory`` (position = paddr) say; None where that is nothing that is understood here."""
        bit, head = known.number("PG_slab"), known.member_offset("page.compound_head")
        size = known.type_size("page")
        if bit is None or not 0 <= bit < 64 or size != SIZE:
            return None
        frames, words = _struct_pages(regions, memory)
        return cls._told(frames, words, bit, (head or 8) // 8, regions)

    @classmethod
    def _told(cls, frames: U64, words: U64, bit: int, head: int, regions: Regions) -> Self | None:
        own = np.flatnonzero(words[:, 0] >> np.uint64(bit) & np.uint64(1))
        at = _cache_word(words[own], regions)
        if at is None:
            return None
        cache = np.zeros(len(words), np.uint64)
        cache[own] = words[own, at]
        tail = np.flatnonzero(words[:, head] & np.uint64(1))
        leads = (words[tail, head] - np.uint64(1 + regions.vmemmap)) // np.uint64(SIZE)
        place = np.minimum(np.searchsorted(frames, leads), len(frames) - 1)
        cache[tail] = np.where(frames[place] == leads, cache[place], np.uint64(0))
        known = np.flatnonzero(cache)
        return cls(frames[known], cache[known])

    def kin(self, frame: int) -> U64:
        """The frames with objects of the same cache as this one's, at most MOST_KIN; none for a frame that is no slab's."""
        at = int(np.searchsorted(self.frame, np.uint64(frame)))
        if at == len(self.frame) or self.frame[at] != frame:
            return self.frame[:0]
        same = np.flatnonzero(self.cache == self.cache[at])
        middle = int(np.searchsorted(same, at))
        start = max(0, min(middle - MOST_KIN // 2, len(same) - MOST_KIN))
        return self.frame[same[start : start + MOST_KIN]]


def _struct_pages(regions: Regions, memory: Source) -> tuple[U64, U64]:
    """Page frames, ascending, and the words of the struct page of each: (n,) and (n, 8)."""
    frames, words, left = [np.zeros(0, np.uint64)], [np.zeros((0, SIZE // 8), np.uint64)], MOST
    for vaddr, paddr, size in regions.memmap.tolist():
        left -= size
        if left < 0:
            break
        try:
            content = np.frombuffer(memory.pread(paddr, size), "<u8").reshape(-1, SIZE // 8)
        except FaultError:
            continue
        first = (vaddr - regions.vmemmap) // SIZE
        frames.append(np.arange(first, first + len(content), dtype=np.uint64))
        words.append(content)
    return np.concatenate(frames), np.concatenate(words)


def _cache_word(heads: U64, regions: Regions) -> int | None:
    """Which word names the cache: an object in the direct map, the same one for many slabs."""
    best: tuple[int, int] | None = None
    for at in range(1, SIZE // 8):
        word = heads[:, at]
        inside = (word >= np.uint64(regions.direct)) & (word < np.uint64(regions.vmalloc)) & (word & np.uint64(7) == 0)
        if len(heads) and inside.all():
            kinds = len(distinct(word))
            best = min(best or (kinds, at), (kinds, at))
    return best[1] if best and best[0] * 2 <= len(heads) else None
