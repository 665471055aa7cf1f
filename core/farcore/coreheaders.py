"""Headers: what stands in front of a composed core's memory, a Source whose program headers are made as they are read.

A dump in millions of fragments has hundreds of megabytes of them, and keeps 12 bytes of each beside its page map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from farcore.arrays import Array
from farcore.elf import PHDR_SIZE, PN_XNUM, PT_LOAD, SEGMENT, Ehdr, Segments, pack_count, pack_segments
from farcore.image import placed
from farcore.runs import U64, Runs
from farcore.source import Source, demand

# Read, write, execute, as /proc/vmcore has it.
FLAGS: Final = 7


@dataclass(frozen=True, slots=True)
class Linear:
    """Physical [start, stop) is mapped from virtual ``vaddr`` on; ``again`` where that is a second mapping, of the image."""

    start: int
    stop: int
    vaddr: int
    again: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """A PT_LOAD for each run ``where`` (of ``runs``), whose bytes stand at ``offset`` in the core."""

    runs: Runs
    where: Array[np.uint32]
    offset: U64
    linear: tuple[Linear, ...]

    def __len__(self) -> int:
        return len(self.where)

    def rows(self, first: int, stop: int) -> Segments:
        """Those from ``first`` up to ``stop``, as SEGMENT."""
        where = self.where[first:stop]
        rows = np.zeros(len(where), SEGMENT)
        low, high = self.runs.start[where], self.runs.stop[where]
        rows["type"], rows["flags"], rows["offset"] = PT_LOAD, FLAGS, self.offset[first:stop]
        rows["paddr"] = rows["vaddr"] = low
        rows["filesz"] = rows["memsz"] = high - low
        for each in self.linear:
            if not each.again:
                inside = (low >= np.uint64(each.start)) & (high <= np.uint64(each.stop))
                rows["vaddr"][inside] += np.uint64((each.vaddr - each.start) % (1 << 64))
        return rows

    def again(self, linear: Linear) -> Segments:
        """What a second mapping has of them, cut to it."""
        start, stop = np.uint64(linear.start), np.uint64(linear.stop)
        held = np.flatnonzero((self.runs.stop > start) & (self.runs.start < stop))
        first, last = np.searchsorted(self.where, held[[0, -1]] + [0, 1]).tolist() if len(held) else (0, 0)
        rows = self.rows(first, last)
        low = np.maximum(rows["paddr"], start)
        high = np.minimum(rows["paddr"] + rows["memsz"], stop)
        rows["offset"] += low - rows["paddr"]
        rows["paddr"], rows["vaddr"] = low, low - start + np.uint64(linear.vaddr)
        rows["filesz"] = rows["memsz"] = high - low
        return rows


class Headers(Source):
    """ELF header, program headers - ``few``, then those of ``loads`` - and, from ``notes_at`` on, the notes."""

    def __init__(self, own: Ehdr, few: Segments, loads: Loads, notes_at: int, notes: bytes) -> None:
        count = len(few) + len(loads)
        self.header, self.loads = placed(own, count), loads
        self._front = self.header.pack() + pack_segments(few, own)
        self._step = PHDR_SIZE[own.bits]
        self._rear_at = len(self._front) + len(loads) * self._step
        extended = pack_count(count, own) if count >= PN_XNUM else b""
        self._rear = extended.ljust(notes_at - self._rear_at, b"\0") + notes
        self.size = self._rear_at + len(self._rear)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at ``offset``."""
        demand(self, offset, length)
        stop = offset + length
        found = self._front[offset:stop]
        low, high = max(offset, len(self._front)), min(stop, self._rear_at)
        if low < high:
            first, lead = divmod(low - len(self._front), self._step)
            last = -(-(high - len(self._front)) // self._step)
            found += pack_segments(self.loads.rows(first, last), self.header)[lead : lead + high - low]
        if stop > self._rear_at:
            found += self._rear[max(0, offset - self._rear_at) : stop - self._rear_at]
        return memoryview(found)
