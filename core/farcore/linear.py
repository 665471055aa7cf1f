"""Which physical memory a kernel maps one to one, and where: what /proc/vmcore writes as p_vaddr, found in the dump itself.

x86_64's direct map and image come from its page tables, with KASLR or without; others' from VMCOREINFO and their fixed maps.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from farcore.elf import Ehdr
from farcore.errors import FaultError
from farcore.hosts import EM_386, EM_486, EM_AARCH64, EM_PPC64, EM_RISCV, EM_X86_64
from farcore.pagetable import START_KERNEL_MAP, Mappings, PageTables
from farcore.regions import Regions
from farcore.source import Source
from farcore.vmcore import Linear
from farcore.vmcoreinfo import Vmcoreinfo

_TOP: Final = 1 << 64
# i386's lowmem under the usual split of 3 to 1: up to here, the rest is high memory, mapped nowhere.
_LOWMEM: Final = 0x38000000
# How an arm64 kernel's image is aligned, and how much of it is looked for; Debian's has 28 MiB.
_ARM64_ALIGN: Final = 2 << 20
_ARM64_IMAGE: Final = 64 << 20


class _Watched(Source):
    """Memory, and the first failure of its storage: who walks page tables takes a page that cannot be read for one left out."""

    def __init__(self, below: Source) -> None:
        self.below, self.size = below, below.size
        self.failure: FaultError | None = None

    def pread(self, offset: int, length: int) -> memoryview:
        """As below."""
        try:
            return self.below.pread(offset, length)
        except FaultError as error:
            self.failure = self.failure or _of_storage(error)
            raise


def _of_storage(error: BaseException | None) -> FaultError | None:
    """The storage's own fault behind this one; None for what is left out, or damaged in the dump itself, today and tomorrow."""
    while error is not None:
        if isinstance(error, FaultError) and (error.space, error.kind) == ("stored", "unreadable"):
            return error
        error = error.__cause__
    return None


def linear(memory: Source, own: Ehdr, known: Vmcoreinfo | None) -> tuple[Linear, ...]:
    """What is known for certain; nothing of a machine, or of a dump, that does not say.

    FaultError (stored, unreadable) where storage failed meanwhile: another look could find more, under the same ETag.
    """
    if known is None:
        return ()
    watched = _Watched(memory)
    found = _found(watched, own, known)
    if watched.failure is not None:
        raise watched.failure
    return found


def _found(memory: Source, own: Ehdr, known: Vmcoreinfo) -> tuple[Linear, ...]:
    found: list[Linear] = []
    if own.machine == EM_X86_64:
        regions = Regions.of(memory, own, known)
        if regions is not None:
            found = [*_image(regions, known), _whole(memory, regions.direct, 0)]
    elif own.machine in (EM_386, EM_486):
        found = [Linear(0, _LOWMEM, 0xC0000000)]
    elif own.machine == EM_AARCH64:
        bits, base = known.number("VA_BITS"), known.number("PHYS_OFFSET")
        # Since 5.4, which brought TCR_EL1_T1SZ as well, the direct map begins where kernel addresses do. PHYS_OFFSET
        # (memstart_addr) is moved by KASLR, below 0 as often as not.
        if bits is not None and base is not None and 36 <= bits <= 52 and known.number("TCR_EL1_T1SZ"):
            found = [*_arm64_image(memory, own, known), Linear(0, memory.size, ((_TOP - (1 << bits)) - base) % _TOP)]
    elif own.machine == EM_PPC64:
        found = [_whole(memory, 0xC000 << 48, 0)]
    elif own.machine == EM_RISCV:
        start, base = known.number("PAGE_OFFSET"), known.number("phys_ram_base")
        if start is not None and base is not None and base >= 0:
            found = [_whole(memory, start % _TOP, base)]
    return tuple(each for each in found if 0 <= each.start < each.stop and each.vaddr + each.stop - each.start <= _TOP)


def _whole(memory: Source, vaddr: int, base: int) -> Linear:
    return Linear(base, memory.size, vaddr)


def _arm64_image(memory: Source, own: Ehdr, known: Vmcoreinfo) -> list[Linear]:
    """The kernel's text and data, as far as its page tables map them at kimage_voffset."""
    tables, voffset, text = PageTables.of(memory, own, known), known.number("kimage_voffset"), known.symbol("_stext")
    if tables is None or voffset is None or text is None:
        return []
    mapped = tables.walk(text - text % _ARM64_ALIGN, text + _ARM64_IMAGE)
    return _mapped(mapped[mapped["vaddr"] - mapped["paddr"] == np.uint64(voffset % _TOP)], voffset)


def _mapped(mapped: Mappings, moved: int) -> list[Linear]:
    """Mappings that are all at one distance, as one; nothing of none."""
    if not len(mapped):
        return []
    start, stop = int(mapped["paddr"].min()), int((mapped["paddr"] + mapped["size"]).max())
    return [Linear(start, stop, (start + moved) % _TOP, again=True)]


def _image(regions: Regions, known: Vmcoreinfo) -> list[Linear]:
    """The kernel's text and data, as far as they are mapped at the one distance that phys_base says."""
    moved = (START_KERNEL_MAP - (known.phys_base or 0)) % _TOP
    mapped = regions.within(START_KERNEL_MAP, START_KERNEL_MAP + (1 << 30))
    return _mapped(mapped[mapped["vaddr"] - mapped["paddr"] == np.uint64(moved)], moved)
