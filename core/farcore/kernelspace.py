"""KernelSpace: a dead kernel's virtual memory as a Source, by what VMCOREINFO and the program headers tell.

In this order: what is certain (x86_64's image: vaddr - __START_KERNEL_map + phys_base; what PT_LOADs say of virtual
addresses), the kernel's page tables, and last the fixed maps of machines whose tables are not read here. QEMU writes p_paddr
or 0 for p_vaddr: such a PT_LOAD says nothing of virtual addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from farcore.elf import Ehdr, Elf
from farcore.errors import FaultError
from farcore.hosts import EM_386, EM_486, EM_AARCH64, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64
from farcore.pagetable import START_KERNEL_MAP, PageTables
from farcore.runs import Kind, Run, Runs, paint
from farcore.segments import wraps
from farcore.source import Extent, Source
from farcore.vmcoreinfo import Vmcoreinfo

# Room for x86_64's image without KASLR (KERNEL_IMAGE_SIZE in arch/x86/include/asm/page_64_types.h); modules come behind it.
_X86_64_IMAGE: Final = 512 << 20
# arm64: how much of a kernel image behind _stext is looked for without page tables; Debian's has 28 MiB.
_ARM64_IMAGE: Final = 64 << 20
_TOP: Final = 1 << 64

# [start, stop) of vaddrs, and what is added to one to get its paddr.
_Linear = tuple[int, int, int]


class KernelSpace(Source):
    """Position = vaddr; a read of what is not mapped, or maps what is not in the dump, is a FaultError."""

    size = _TOP

    def __init__(
        self, physical: Source, header: Ehdr, known: Vmcoreinfo, elf: Elf | None = None, tables: PageTables | None = None
    ) -> None:
        """``tables``: those to believe, and nothing else; None for the kernel's own and all that stands above."""
        self.physical = physical
        alone = tables is not None
        self._sure = _runs([] if alone else [*_image(header.machine, known)], None if alone else elf)
        self._guessed = _runs([] if alone else [*_fixed(header.machine, known)])
        self._tables = tables or PageTables.of(physical, header, known)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at vaddr ``offset``."""
        return self.preadv([Extent(offset, length)])[0]

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """The batch; the physical memory is asked once for all of it."""
        plans = [list(self._plan(offset, length)) for offset, length in extents]
        found = iter(self.physical.preadv([piece for plan in plans for piece in plan]))
        return [_joined([next(found) for _ in plan]) for plan in plans]

    def _plan(self, offset: int, length: int) -> Iterator[Extent]:
        """Where in physical memory the bytes lie, piece by piece."""
        if offset < 0 or length < 0 or offset + length > _TOP:
            raise FaultError(address=offset, length=length, space="virtual", kind="absent")
        for run in self._sure.walk(offset, offset + length):
            if run.kind is Kind.DATA:
                yield Extent(run.offset, run.stop - run.start)
            else:
                yield from self._walked(run.start, run.stop)

    def _walked(self, start: int, stop: int) -> Iterator[Extent]:
        """By page tables; what they do not map by the machine's fixed map."""
        at = start
        for vaddr, paddr, size in self._tables.walk(start, stop).tolist() if self._tables else ():
            if vaddr > at:
                yield from map(_demand_data, self._guessed.walk(at, vaddr))
                at = vaddr
            until = min(stop, vaddr + size)
            yield Extent(paddr + at - vaddr, until - at)
            at = until
        yield from map(_demand_data, self._guessed.walk(at, stop))


def _demand_data(run: Run) -> Extent:
    if run.kind is not Kind.DATA:
        raise FaultError(address=run.start, length=run.stop - run.start, space="virtual", kind="absent")
    return Extent(run.offset, run.stop - run.start)


def _joined(pieces: list[memoryview]) -> memoryview:
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _image(machine: int, known: Vmcoreinfo) -> Iterator[_Linear]:
    """x86_64's kernel image, which lies where phys_base says."""
    if machine == EM_X86_64 and known.phys_base is not None:
        start = START_KERNEL_MAP + max(0, -known.phys_base)
        room = known.number("KERNEL_IMAGE_SIZE") or _X86_64_IMAGE
        yield start, START_KERNEL_MAP + min(max(0, room), 1 << 30), known.phys_base - START_KERNEL_MAP


def _fixed(machine: int, known: Vmcoreinfo) -> Iterator[_Linear]:
    """What a machine maps at one place whatever its page tables say (Linux 6.1, arch/*/include/asm/page.h)."""
    text = known.symbol("_stext")
    if machine == EM_AARCH64 and text is not None and (voffset := known.number("kimage_voffset")) is not None:
        yield text - text % (2 << 20), text + _ARM64_IMAGE, -voffset
    if machine in (EM_386, EM_486):
        yield 0xC0000000, 0xF8000000, -0xC0000000  # lowmem under the usual split of 3 to 1
    if machine == EM_PPC64:
        yield 0xC000 << 48, 0xD000 << 48, -(0xC000 << 48)
    if machine == EM_S390:
        yield 0, 1 << 53, 0  # before 6.10
    if machine == EM_RISCV:
        if text is not None and (voffset := known.number("va_kernel_pa_offset")) is not None:
            yield text - text % (2 << 20), text + _ARM64_IMAGE, -voffset
        base, ram = known.number("PAGE_OFFSET"), known.number("phys_ram_base")
        if base is not None and ram is not None:
            yield base, base + (1 << 37), ram - base


def _runs(linear: list[_Linear], elf: Elf | None = None) -> Runs:
    """Runs of vaddrs whose ``offset`` is a paddr; the first of two that overlap counts."""
    rows = [(start, stop, start + moved) for start, stop, moved in linear if 0 <= start < stop < _TOP and start + moved >= 0]
    start, stop, paddr = np.array(rows, np.uint64).reshape(-1, 3).T
    if elf is not None:
        loads = elf.loads
        loads = loads[~wraps(loads, "vaddr") & (loads["vaddr"] != loads["paddr"]) & (loads["vaddr"] != 0)]
        start = np.concatenate([start, loads["vaddr"]])
        stop = np.concatenate([stop, loads["vaddr"] + np.maximum(loads["filesz"], loads["memsz"])])
        paddr = np.concatenate([paddr, loads["paddr"]])
    return paint(start, stop, paddr, np.full(len(start), Kind.DATA, np.uint8))
