"""Regions: where a kernel put the parts of its address space on this boot, as its own page tables tell.

x86_64 (Documentation/arch/x86/x86_64/mm.rst; arch/x86/mm/kaslr.c moves the first three, each by multiples of 1 GiB and in this
order). VMCOREINFO has none of the three bases; what is mapped lowest is physical address 0 in the direct map, what is mapped
next lies in vmalloc, and what is mapped beyond vmalloc's fixed size in vmemmap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from farcore.elf import Ehdr
from farcore.hosts import EM_X86_64
from farcore.pagetable import START_KERNEL_MAP, Mappings, PageTables
from farcore.source import Source
from farcore.vmcoreinfo import Vmcoreinfo

_PUD: Final = 1 << 30
# VMALLOC_SIZE_TB (arch/x86/include/asm/pgtable_64_types.h) with 4 and 5 levels.
_VMALLOC_SIZE: Final = {4: 32 << 40, 5: 12800 << 40}
# CPU_ENTRY_AREA_BASE: what is above vmemmap and below the image.
_ENTRY_AREA: Final = 0xFFFFFE0000000000


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Virtual addresses: of physical address 0, VMALLOC_START, the struct page of frame 0, and link address START_KERNEL_MAP.

    ``mapped``: all that is mapped above the direct map, an array of MAPPING, ascending.
    """

    direct: int
    vmalloc: int
    vmemmap: int
    image: int
    mapped: Mappings

    @classmethod
    def of(cls, memory: Source, header: Ehdr, known: Vmcoreinfo) -> Regions | None:
        """What the page tables in ``memory`` (position = paddr) tell; None where they tell nothing, or not of x86_64."""
        tables = PageTables.of(memory, header, known)
        if tables is None or header.machine != EM_X86_64:
            return None
        found, mapped = tables.survey(memory.size & -_PUD)
        if found is None or (found[0] - found[1]) % _PUD:
            return None
        direct = found[0] - found[1]
        mapped = mapped[mapped["vaddr"] + mapped["size"] - np.uint64(1) >= np.uint64(direct + (memory.size & -_PUD))]
        mapped = mapped[mapped["vaddr"] - mapped["paddr"] != np.uint64(direct)]
        starts = mapped["vaddr"]
        if not len(starts):
            return None
        vmalloc = int(starts[0]) & -_PUD
        beyond = int(np.searchsorted(starts, np.uint64(vmalloc + _VMALLOC_SIZE[len(tables.format.shifts)])))
        if beyond == len(starts) or int(starts[beyond]) >= _ENTRY_AREA:
            return None
        return cls(direct, vmalloc, int(starts[beyond]) & -_PUD, START_KERNEL_MAP + (known.kernel_offset or 0), mapped)

    def within(self, low: int, high: int) -> Mappings:
        """What is mapped from ``low`` up to ``high``, of mappings that start there."""
        first, last = np.searchsorted(self.mapped["vaddr"], np.array([low, high - 1], np.uint64), side="left")
        return self.mapped[first:last]

    def physical(self, vaddr: int) -> int | None:
        """Where a virtual address above the direct map lies in physical memory; None where nothing is mapped."""
        row = int(np.searchsorted(self.mapped["vaddr"], np.uint64(vaddr), side="right")) - 1
        start, paddr, size = self.mapped[row].tolist() if row >= 0 else (0, 0, 0)
        return paddr + vaddr - start if vaddr < start + size else None

    @property
    def memmap(self) -> Mappings:
        """The memory that holds the struct pages."""
        return self.within(self.vmemmap, _ENTRY_AREA)
