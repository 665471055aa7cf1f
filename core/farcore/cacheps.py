"""Cacheps: the kernel image's own pointers to the allocator's caches, which name a cache alike on every boot.

task_struct_cachep, cred_jar, kmalloc_caches[]... lie in .data and .bss at fixed places (include/linux/slab.h, kernel/fork.c):
a pointer's place in the image leads to the cache on another boot, and the cache to the pages that hold its objects. A number
here is the pointer's distance from the link address START_KERNEL_MAP, in words of 8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from farcore.errors import FaultError
from farcore.runs import U64, among, distinct
from farcore.slabs import Slabs
from farcore.source import Extent, Source

# Page frames that names lead to, those of small caches first: inodes may fill gigabytes.
MOST: Final = 2048
_WORD: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Cacheps:
    """``cache``: addresses of caches of ``slabs``, ascending; ``number``: of each one's first pointer."""

    slabs: Slabs
    cache: U64
    number: U64

    @classmethod
    def of(cls, slabs: Slabs, data: Iterable[Extent], base: int, memory: Source) -> Self:
        """Of the caches that have slabs, those that ``data`` points to, the image's own in ``memory`` (position = paddr).

        ``base``: where START_KERNEL_MAP would be; what cannot be read is passed over.
        """
        caches = distinct(slabs.cache)
        held, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for start, length in data:
            try:
                words = np.frombuffer(memory.pread(start, length // _WORD * _WORD), "<u8")
            except FaultError:
                continue
            at = np.flatnonzero(among(words, caches))
            held.append(words[at])
            numbers.append((at + (start - base) // _WORD).astype(np.uint64))
        cache, number = np.concatenate(held), np.concatenate(numbers)
        order = np.lexsort((number, cache))
        cache, number = cache[order], number[order]
        first = np.searchsorted(cache, distinct(cache))
        return cls(slabs, cache[first], number[first])

    def names(self, frames: U64) -> U64:
        """The numbers of the caches whose objects these page frames hold."""
        mine = distinct(self.slabs.cache[among(self.slabs.frame, distinct(frames))])
        return self.number[among(self.cache, mine)]


def pointers(numbers: U64, base: int) -> list[Extent]:
    """Where in physical memory, on this boot, the pointers with these numbers lie; ``base`` as for Cacheps.of."""
    return [Extent(paddr, _WORD) for number in numbers.tolist() if (paddr := base + number * _WORD) >= 0]


def frames(slabs: Slabs, where: Iterable[Extent], memory: Source) -> U64:
    """The page frames, ascending, of the caches to which these pointers lead."""
    caches = []
    for extent in where:
        try:
            caches.append(int.from_bytes(memory.pread(*extent), "little"))
        except FaultError:
            continue
    own = np.sort(slabs.cache[among(slabs.cache, np.sort(np.array(caches, np.uint64)))])
    cache = distinct(own)
    count = np.diff(np.searchsorted(own, cache), append=len(own))
    order = np.argsort(count, kind="stable")
    kept = np.sort(cache[order[np.cumsum(count[order]) <= MOST]])
    return slabs.frame[among(slabs.cache, kept)]
