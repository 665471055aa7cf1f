"""The kernel's page tables: from a virtual address to a physical one, and all that a range of virtual addresses maps to.

x86_64 with 4 or 5 levels (Intel SDM volume 3, 4.5; arch/x86/include/asm/pgtable_types.h), arm64 with pages of 4, 16 or 64 KiB
(Arm ARM, D8.3; arch/arm64/include/asm/pgtable-hwdef.h). Both have tables of 64-bit entries with a bit for "valid" at the lowest
place and one for "this is memory, not a table"; where they lie and how they are cut is a Format. VMCOREINFO says both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from farcore.arrays import Array
from farcore.elf import Ehdr
from farcore.errors import FaultError
from farcore.hosts import EM_AARCH64, EM_X86_64
from farcore.runs import U64
from farcore.source import Extent, Source
from farcore.vmcoreinfo import Vmcoreinfo

# Tables of one walk, 16 MiB of 4 KiB ones: a kernel with 2 TiB in 2 MiB pages has 2,100 for its direct map.
MAX_TABLES: Final = 1 << 12

# x86_64's __START_KERNEL_map (arch/x86/include/asm/page_64_types.h): the image is linked there, and phys_base is its start.
START_KERNEL_MAP: Final = 0xFFFFFFFF80000000
_ALL: Final = (1 << 64) - 1
_VALID: Final = np.uint64(1)

# ``size`` bytes from ``vaddr`` on lie at ``paddr``.
MAPPING: Final = np.dtype([("vaddr", "u8"), ("paddr", "u8"), ("size", "u8")])
Mappings = Array[np.void]


@dataclass(frozen=True, slots=True)
class Format:
    """``shifts``: the address bits below each level's index, the top level first; ``bits``: how many a kernel's address has.

    ``first``: where in the top table the kernel's entries begin. ``address``: the bits of an entry that are a physical
    address. ``leaf``: the bit that tells memory from a table, and the value it has for memory.
    """

    shifts: tuple[int, ...]
    bits: int
    first: int
    address: int
    leaf: tuple[int, Literal[0, 1]]

    @property
    def base(self) -> int:
        """The lowest kernel address: all bits above the translated ones are set."""
        return _ALL + 1 - (1 << self.bits)


# Four levels. The upper half of the top table is the kernel's.
X86_64: Final = Format((39, 30, 21, 12), 47, 256, 0x000F_FFFF_FFFF_F000, (7, 1))


@dataclass(frozen=True, slots=True)
class PageTables:
    """The tables under the one at physical address ``top``, read from ``memory`` (position = paddr)."""

    memory: Source
    top: int
    format: Format

    @classmethod
    def of(cls, memory: Source, header: Ehdr, known: Vmcoreinfo) -> PageTables | None:
        """The kernel's own, as far as VMCOREINFO says where they are; None on a machine that is not known here."""
        table = known.symbol("swapper_pg_dir") or known.symbol("init_top_pgt")
        if table is None or header.bits != 64:
            return None
        if header.machine == EM_X86_64:
            levels = (48, 39, 30, 21, 12) if known.number("pgtable_l5_enabled") else (39, 30, 21, 12)
            encrypted = known.number("sme_mask") or 0
            shape = replace(X86_64, shifts=levels, bits=levels[0] + 8, address=X86_64.address & ~encrypted)
            return cls(memory, (table - START_KERNEL_MAP + (known.phys_base or 0)) & _ALL, shape)
        offset, bits, size = known.number("kimage_voffset"), known.number("VA_BITS"), known.page_size
        if header.machine != EM_AARCH64 or offset is None or bits is None or size not in (4096, 16384, 65536):
            return None
        page = size.bit_length() - 1
        if not page < bits <= 52:
            return None
        # TCR_EL1.T1SZ says how many bits are really translated where the kernel was built for more.
        bits = 64 - (known.number("TCR_EL1_T1SZ") or 64 - bits)
        shifts = tuple(range(page, bits, page - 3))[::-1]
        return cls(memory, (table - offset) & _ALL, Format(shifts, bits, 0, (1 << 48) - size, (1, 0)))

    def translate(self, vaddr: int) -> int:
        """The physical address of a kernel's virtual one; FaultError (virtual, absent) where nothing is mapped."""
        if self.format.base <= vaddr <= _ALL:
            for start, paddr, size in self.walk(vaddr, vaddr + 1).tolist():
                if start <= vaddr < start + size:
                    return int(paddr + vaddr - start)
        raise FaultError(address=vaddr, length=1, space="virtual", kind="absent")

    def survey(self, spared: int) -> tuple[tuple[int, int] | None, Mappings]:
        """The lowest kernel address that is mapped with its physical one, and what is mapped from ``spared`` bytes above it on.

        That address is taken to begin a large page of the level above the last two; as ``walk``, one batch read a level.
        """
        tables, bases = np.array([self.top], np.uint64), np.array([self.format.base], np.uint64)
        low, lowest = self.format.base, None
        found, left = [np.empty(0, MAPPING)], MAX_TABLES
        for level, shift in enumerate(self.format.shifts):
            tables, bases = tables[:left], bases[:left]
            left -= len(tables)
            entries, bases = self._entries(tables, bases, level)
            valid = np.flatnonzero(entries & _VALID)
            entries, bases = entries[valid], bases[valid]
            if not len(entries):
                break
            if level == len(self.format.shifts) - 3:
                low = int(bases[0]) + spared
            here = bases + np.uint64((1 << shift) - 1) >= np.uint64(low)
            memory = self._is_memory(entries, level)
            paddr = entries & np.uint64(self.format.address & -(1 << shift))
            if memory[0] and lowest is None:
                lowest = int(bases[0]), int(paddr[0])
            found.append(_mappings(bases[here & memory], paddr[here & memory], 1 << shift))
            here[0] = lowest is None  # its tables are followed down to it
            onward = here & ~memory
            tables, bases = entries[onward] & np.uint64(self.format.address), bases[onward]
        every = np.concatenate(found)
        return lowest, every[np.argsort(every["vaddr"], kind="stable")]

    def walk(self, low: int, high: int) -> Mappings:
        """What [low, high) of kernel addresses maps to: an array of MAPPING, ascending; whole pages, one batch read a level.

        Tables that the dump does not have, and those beyond MAX_TABLES, map nothing.
        """
        tables, bases = np.array([self.top], np.uint64), np.array([self.format.base], np.uint64)
        found: list[Mappings] = []
        left = MAX_TABLES
        for level, shift in enumerate(self.format.shifts):
            tables, bases = tables[:left], bases[:left]
            left -= len(tables)
            entries, bases = self._entries(tables, bases, level)
            # From the table's start up to its end, either of which may be in the midst of the range.
            last = bases + np.uint64((1 << shift) - 1)
            here = (entries & _VALID).astype(np.bool_) & (last >= np.uint64(low)) & (bases <= np.uint64(high - 1))
            entries, bases = entries[here], bases[here]
            memory = self._is_memory(entries, level)
            found.append(_mappings(bases[memory], entries[memory] & np.uint64(self.format.address & -(1 << shift)), 1 << shift))
            tables, bases = entries[~memory] & np.uint64(self.format.address), bases[~memory]
            if not len(tables):
                break
        every = np.concatenate(found)
        return every[np.argsort(every["vaddr"], kind="stable")]

    def _is_memory(self, entries: U64, level: int) -> Array[np.bool_]:
        if level == len(self.format.shifts) - 1:
            return np.ones(len(entries), np.bool_)
        place, value = self.format.leaf
        memory: Array[np.bool_] = (entries >> np.uint64(place) & _VALID) == np.uint64(value)
        return memory

    def _entries(self, tables: U64, bases: U64, level: int) -> tuple[U64, U64]:
        """All entries of these tables, and the address that each stands for; those of tables that are not there left out."""
        above = self.format.bits if level == 0 else self.format.shifts[level - 1]
        shift, first = self.format.shifts[level], self.format.first if level == 0 else 0
        count = 1 << (above - shift)
        reads = _read_some(self.memory, [Extent(table + first * 8, count * 8) for table in tables.tolist()])
        whole = [each for each, content in enumerate(reads) if content is not None]
        entries = np.frombuffer(b"".join(content for content in reads if content is not None), "<u8")
        steps = np.arange(count, dtype=np.uint64) << np.uint64(shift)
        return entries, (bases[whole][:, None] + steps[None, :]).reshape(-1)


def _mappings(vaddr: U64, paddr: U64, size: int) -> Mappings:
    found = np.empty(len(vaddr), MAPPING)
    found["vaddr"], found["paddr"], found["size"] = vaddr, paddr, size
    return found


def _read_some(memory: Source, extents: Sequence[Extent]) -> list[memoryview | None]:
    """The batch at once where all of it is there; else what is there, and None for the rest."""
    try:
        return list(memory.preadv(extents))
    except FaultError:
        return [_read_one(memory, extent) for extent in extents]


def _read_one(memory: Source, extent: Extent) -> memoryview | None:
    try:
        return memory.pread(*extent)
    except FaultError:
        return None
