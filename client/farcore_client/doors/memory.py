"""Virtual memory, as the kernel itself had it: by its page tables where farcore walks them, else by the dump's p_vaddr."""

from __future__ import annotations

from typing import Final, Protocol

from farcore import segments
from farcore.errors import FaultError
from farcore.pagetable import PageTables
from farcore.source import Extent, Source
from farcore.space import VirtualSpace
from farcore_client.target import Target

# Regions that gdb is told of; it looks through them one after the other on every read.
MAX_REGIONS: Final = 256


class Memory(Protocol):
    """``regions``: [start, stop) of the addresses that can be there."""

    regions: list[tuple[int, int]]

    def read(self, vaddr: int, length: int) -> bytes:
        """What is there from ``vaddr`` on, at least one byte and at most ``length``; FaultError where the first is not."""
        ...


class Walked:
    """Through the kernel's page tables: a batch a level, and one for the memory.

    What they map no longer, though PT_LOADs tell of it (the kernel's discarded init sections), is read by ``claimed``, as a
    local gdb reads it; but no address of user space is, which QEMU's PT_LOADs claim for all of physical memory.
    """

    def __init__(self, tables: PageTables, claimed: Claimed) -> None:
        self.tables, self.claimed = tables, claimed
        self.regions = [(tables.format.base, 1 << 64)]

    def read(self, vaddr: int, length: int) -> bytes:
        """As Memory.read."""
        if not self.tables.format.base <= vaddr < 1 << 64:
            raise FaultError(address=vaddr, length=length, space="virtual", kind="absent")
        extents = self._extents(vaddr, min(length, (1 << 64) - vaddr))
        return _prefix(self.tables.memory, extents) if extents else self.claimed.read(vaddr, length)

    def _extents(self, vaddr: int, length: int) -> list[Extent]:
        """Where the bytes lie, up to the first that nothing maps."""
        stop, found = vaddr + length, list[Extent]()
        at = vaddr
        for start, paddr, size in self.tables.walk(vaddr, stop).tolist():
            if not start <= at < start + size:
                break
            end = min(start + size, stop)
            found.append(Extent(paddr + at - start, end - at))
            at = end
        return found


class Claimed:
    """By what the PT_LOADs say of virtual addresses."""

    def __init__(self, target: Target) -> None:
        self.space = VirtualSpace(target.vmcore, target.elf)
        runs = segments.virtual(target.elf, target.vmcore.size)
        self.regions = list(zip(runs.start.tolist(), runs.stop.tolist(), strict=True))

    def read(self, vaddr: int, length: int) -> bytes:
        """As Memory.read."""
        return _prefix(self.space, [Extent(vaddr, length)])


def of(target: Target) -> Memory:
    """The kernel's memory in this dump, by the best of the ways that there are."""
    known = target.vmcoreinfo
    tables = PageTables.of(target.physical, target.elf.header, known) if known else None
    return Walked(tables, Claimed(target)) if tables else Claimed(target)


def _prefix(source: Source, extents: list[Extent]) -> bytes:
    """The bytes of the extents up to the first that is not there."""
    try:
        return b"".join(source.preadv(extents))
    except FaultError:
        pass
    found = bytearray()
    for offset, length in extents:
        try:
            found += source.pread(offset, length)
        except FaultError as fault:
            there = min(fault.address - offset, length)
            if there > 0:
                found += source.pread(offset, there)
            if not found:
                raise
            break
    return bytes(found)
