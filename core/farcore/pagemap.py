"""PageMap: which page frames a kdump-compressed dump has, which it leaves out, and which of the dumped ones each one is.

Made from the two bitmaps in O(their bytes), a few runs a chunk. Page descriptors are in the order of the dumped frames, so the
number of dumped frames before a run is all that leads from an address to its descriptor. It is kept as a position: of the
run's first byte among all dumped pages, one after the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from farcore.arrays import Array
from farcore.diskdump import Diskdump
from farcore.errors import BadDumpError
from farcore.layout import Layout
from farcore.runs import U64, Kind, Runs, compose
from farcore.source import Source

# Of 25 bytes each: 400 MiB, eight million fragments of data with as many exclusions between them. A host of 1 TiB gets there
# where on average 128 KiB in a row are kept, then left out.
MAX_RUNS: Final = 1 << 24
# No machine has more; what a layout has beside dumped pages lies beyond (composed.py).
MAX_ADDRESS: Final = 1 << 60
# Bytes of a bitmap that are looked at in one go: 32 GiB of memory, 8 MiB of work space.
_STEP: Final = 1 << 20

# By what the two bitmaps say of a frame: 2 * dumped + RAM.
_KINDS: Final = np.array([Kind.ABSENT, Kind.EXCLUDED, Kind.DATA, Kind.DATA], np.uint8)
_Codes = Array[np.uint8]


@dataclass(frozen=True, eq=False)
class PageMap:
    """``runs`` of physical memory, in pages of ``block`` bytes; ``offset`` of DATA is its position among the dumped pages."""

    runs: Runs
    block: int

    @classmethod
    def read(cls, header: Diskdump, below: Source, *, most: int = MAX_RUNS) -> PageMap:
        """From the bitmaps; BadDumpError (diskdump) for more than ``most`` runs, or memory beyond MAX_ADDRESS."""
        if header.base + header.max_frame * header.block >= MAX_ADDRESS:
            raise BadDumpError("the kdump-compressed dump claims memory beyond 2^60: it is damaged", term="diskdump")
        start, code = _edges(header, below, most)
        stop = np.append(start[1:], np.uint64(header.max_frame))[: len(start)]
        kind = _KINDS[code]
        if (used := kind != Kind.ABSENT).sum() < len(kind):
            start, stop, kind = start[used], stop[used], kind[used]
        block, base = np.uint64(header.block), np.uint64(header.base)
        for edge in (start, stop):
            edge *= block
            edge += base
        size = np.where(kind == Kind.DATA, stop - start, np.uint64(0))
        return cls(Runs(start, stop, np.cumsum(size, dtype=np.uint64) - size, kind), header.block)

    def layout(self) -> Layout:
        """Physical memory, over the dumped pages."""
        return Layout("physical", self.size, self.runs)

    @property
    def size(self) -> int:
        """One past the highest physical address of which the dump says anything."""
        return int(self.runs.stop[-1]) if len(self.runs) else 0

    @cached_property
    def end(self) -> int:
        """Bytes of all dumped pages: one past the last position."""
        data = self.where
        return int(self.runs.offset[data[-1]] + self.runs.stop[data[-1]] - self.runs.start[data[-1]]) if len(data) else 0

    @cached_property
    def where(self) -> Array[np.uint32]:
        """Which of the runs are DATA."""
        return np.flatnonzero(self.runs.kind == Kind.DATA).astype(np.uint32)

    def before(self, address: int) -> int:
        """How many dumped frames start below ``address``."""
        runs, data = self.runs, self.where
        i = bisect_right(data, address, key=lambda run: int(runs.start[run])) - 1
        if i < 0:
            return 0
        inside = min(address, int(runs.stop[data[i]])) - int(runs.start[data[i]])
        return -(-(int(runs.offset[data[i]]) + inside) // self.block)

    def address(self, position: int) -> int:
        """The physical address of a byte of the dumped pages."""
        runs, data = self.runs, self.where
        run = data[max(0, bisect_right(data, position, key=lambda run: int(runs.offset[run])) - 1)]
        return int(runs.start[run]) + position - int(runs.offset[run])

    def without(self, lost: Sequence[tuple[int, int]]) -> PageMap:
        """The same map, but for frames that were lost: [first, end) by rank, ascending. They become ABSENT."""
        if not lost:
            return self
        first, end = (np.array(lost, np.uint64) * np.uint64(self.block)).T
        start, stop = np.append(np.uint64(0), end), np.append(first, np.uint64(self.end))
        kept = start < stop
        held = Runs(start[kept], stop[kept], start[kept], np.zeros(int(kept.sum()), np.uint8))
        return PageMap(compose(self.runs, held), self.block)


def _edges(header: Diskdump, below: Source, most: int) -> tuple[U64, _Codes]:
    """Where what the bitmaps say of the frames changes: the first frame of each stretch, and its code."""
    frames: list[U64] = []
    codes: list[_Codes] = []
    known, last = 0, -1
    for at in range(0, header.bitmap_size, _STEP):
        length = min(_STEP, header.bitmap_size - at)
        first, count = at * 8, min(length * 8, header.max_frame - at * 8)
        dumped = np.frombuffer(below.pread(header.dumped_at + at, length), np.uint8)
        ram = dumped if header.ram_at is None else np.frombuffer(below.pread(header.ram_at + at, length), np.uint8)
        if (uniform := _uniform(ram, dumped)) is not None:
            where, code = np.zeros(1, np.intp), np.array([uniform], np.uint8)
        else:
            code = np.unpackbits(dumped, bitorder="little")[:count] * np.uint8(2)
            code += np.unpackbits(ram, bitorder="little")[:count]
            where = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(code[1:] != code[:-1]) + 1])
            code = code[where]
        if len(code) and code[0] == last:
            where, code = where[1:], code[1:]
        if len(code):
            last = int(code[-1])
        frames.append(where.astype(np.uint64) + np.uint64(first))
        codes.append(code)
        known += len(code)
        if known > most:
            raise BadDumpError(
                f"the dump is in more than {most:,} fragments, too many to keep in memory: read the file itself with crash",
                term="diskdump",
            )
    if not frames:
        return np.empty(0, np.uint64), np.empty(0, np.uint8)
    return np.concatenate(frames), np.concatenate(codes)


def _uniform(ram: Array[np.uint8], dumped: Array[np.uint8]) -> int | None:
    """The one code that all frames have, where both bitmaps are all zeros or all ones."""
    first_ram, first_dumped = int(ram[0]), int(dumped[0])
    if first_ram not in (0, 255) or first_dumped not in (0, 255):
        return None
    if (ram != first_ram).any() or (dumped != first_dumped).any():
        return None
    return (first_dumped & 1) * 2 + (first_ram & 1)
