"""PageMap: which page frames a kdump-compressed dump has, which it leaves out, and where each one's descriptor stands.

Made from the two bitmaps in O(their bytes), a few runs a chunk. Descriptors are in the order of the dumped frames, so the
number of dumped frames before a run is all that leads from an address to its descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from farcore.diskdump import Diskdump
from farcore.errors import BadDumpError
from farcore.runs import U64, Kind, Runs, compose, paint
from farcore.source import Source

# A dump of 1 TiB with every second GiB in fragments of 4 KiB; 130 bytes each with their PT_LOADs.
MAX_RUNS: Final = 1 << 21
# Bytes of a bitmap that are looked at in one go: 32 GiB of memory, 8 MiB of work space.
_STEP: Final = 1 << 20

# By what the two bitmaps say of a frame: 2 * dumped + RAM.
_KINDS: Final = np.array([Kind.ABSENT, Kind.EXCLUDED, Kind.DATA, Kind.DATA], np.uint8)
_Codes = npt.NDArray[np.uint8]


class Frames(NamedTuple):
    """``number`` dumped frames from physical address ``address`` on; ``rank`` dumped frames come before them."""

    address: int
    number: int
    rank: int


@dataclass(frozen=True, eq=False)
class PageMap:
    """``runs`` of physical memory (DATA lies at its own address), and for each the dumped frames before it: uint64."""

    runs: Runs
    rank: U64
    block: int

    @classmethod
    def read(cls, header: Diskdump, below: Source) -> PageMap:
        """From the bitmaps; BadDumpError (diskdump) beyond MAX_RUNS or 2^63."""
        if header.base + header.max_frame * header.block >= 1 << 63:
            raise BadDumpError("the kdump-compressed dump claims memory beyond 2^63: it is damaged", term="diskdump")
        frame, code = _edges(header, below)
        stop = np.append(frame[1:], np.uint64(header.max_frame))[: len(frame)]
        kind = _KINDS[code]
        dumped = np.where(kind == Kind.DATA, stop - frame, np.uint64(0))
        used = kind != Kind.ABSENT
        block, base = np.uint64(header.block), np.uint64(header.base)
        start = frame[used] * block + base
        offset = np.where(kind[used] == Kind.DATA, start, np.uint64(0))
        runs = Runs(start, stop[used] * block + base, offset, kind[used])
        return cls(runs, (np.cumsum(dumped) - dumped)[used].astype(np.uint64), header.block)

    @property
    def size(self) -> int:
        """One past the highest physical address of which the dump says anything."""
        return int(self.runs.stop[-1]) if len(self.runs) else 0

    @property
    def dumped(self) -> int:
        """How many frames have a descriptor."""
        return self.before(self.size)

    def before(self, address: int) -> int:
        """How many dumped frames start below ``address``; exact for a map that nothing was taken from."""
        runs = self.runs
        i = int(np.searchsorted(runs.stop, np.uint64(address), side="left"))
        if i == len(runs):
            if i == 0:
                return 0
            i, address = i - 1, int(runs.stop[-1])
        inside = max(0, address - int(runs.start[i])) if runs.kind[i] == Kind.DATA else 0
        return int(self.rank[i]) + -(-inside // self.block)

    def rank_of(self, address: int) -> int | None:
        """How many dumped frames come before the one of ``address``; None where that is not there."""
        starts, stops, ranks = self._data
        i = int(starts.searchsorted(np.uint64(address), side="right")) - 1
        if i < 0 or address >= int(stops[i]):
            return None
        return int(ranks[i]) + (address - int(starts[i])) // self.block

    @cached_property
    def _data(self) -> tuple[U64, U64, U64]:
        """Start, stop and rank of the runs of data alone."""
        data = self.runs.kind == Kind.DATA
        return self.runs.start[data], self.runs.stop[data], self.rank[data]

    def frames(self, start: int, stop: int) -> Iterator[Frames]:
        """The whole frames that [start, stop) touches, run by run; what lies between runs of data is passed over."""
        runs, block = self.runs, self.block
        for i in range(int(np.searchsorted(runs.stop, np.uint64(start), side="right")), len(runs)):
            low, high = int(runs.start[i]), int(runs.stop[i])
            if low >= stop:
                return
            if runs.kind[i] == Kind.DATA:
                skipped = max(0, start - low) // block
                count = (min(high, stop) - low + block - 1) // block - skipped
                yield Frames(low + skipped * block, count, int(self.rank[i]) + skipped)

    def without(self, lost: Sequence[tuple[int, int]]) -> PageMap:
        """The same map, but for frames that were lost: [first, end) by rank, ascending. They become ABSENT."""
        if not lost:
            return self
        data = np.flatnonzero(self.runs.kind == Kind.DATA)
        # Runs over ranks, each at its address; what is kept of all ranks; the addresses of what is kept.
        rank, start = self.rank[data], self.runs.start[data]
        length = (self.runs.stop[data] - start) // np.uint64(self.block)
        by_rank = Runs(rank, rank + length, start, np.zeros(len(data), np.uint8))
        first, end = np.array(lost, np.uint64).T
        total = np.array([self.dumped], np.uint64)
        low = np.concatenate([np.zeros(1, np.uint64), end])
        kept = paint(low, np.concatenate([first, total]), low, np.zeros(len(low), np.uint8))
        return self._only(kept, by_rank)

    def _only(self, kept: Runs, by_rank: Runs) -> PageMap:
        block = np.uint64(self.block)
        each = np.searchsorted(by_rank.stop, kept.start, side="right")
        last = np.searchsorted(by_rank.start, kept.stop, side="left") - 1

        def address(rank: U64, run: npt.NDArray[np.intp]) -> U64:
            found: U64 = by_rank.offset[run] + (rank - by_rank.start[run]) * block
            return found

        start = address(kept.start, each)
        stop = address(kept.stop - np.uint64(1), last) + block
        runs = compose(self.runs, Runs(start, stop, start, np.zeros(len(start), np.uint8)))
        old = np.searchsorted(self.runs.stop, runs.start, side="right")
        return PageMap(runs, self.rank[old] + (runs.start - self.runs.start[old]) // block, self.block)


def _edges(header: Diskdump, below: Source) -> tuple[U64, _Codes]:
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
        if known > MAX_RUNS:
            raise BadDumpError(
                f"the dump is in more than {MAX_RUNS:,} fragments, too many for an ELF image: read it with crash",
                term="diskdump",
            )
    if not frames:
        return np.empty(0, np.uint64), np.empty(0, np.uint8)
    return np.concatenate(frames), np.concatenate(codes)


def _uniform(ram: npt.NDArray[np.uint8], dumped: npt.NDArray[np.uint8]) -> int | None:
    """The one code that all frames have, where both bitmaps are all zeros or all ones."""
    first_ram, first_dumped = int(ram[0]), int(dumped[0])
    if first_ram not in (0, 255) or first_dumped not in (0, 255):
        return None
    if (ram != first_ram).any() or (dumped != first_dumped).any():
        return None
    return (first_dumped & 1) * 2 + (first_ram & 1)
