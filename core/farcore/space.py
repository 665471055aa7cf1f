"""Space: a Source that reads another through a Layout: physical memory, virtual memory, a recomposed vmcore."""

from __future__ import annotations

from collections.abc import Iterable

from farcore import layout
from farcore.elf import Elf
from farcore.layout import Layout
from farcore.runs import Kind
from farcore.source import Extent, Source


class Space(Source):
    """The positions of ``layout`` over ``below``; a hole is a FaultError with its address and kind, never zeros."""

    def __init__(self, below: Source, layout: Layout) -> None:
        self.below, self.layout, self.size = below, layout, layout.size

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at position ``offset``; FaultError (absent, excluded, unreadable)."""
        # Debuggers read four bytes at a time: this is a quarter of what the plan costs.
        if length > 0 and offset >= 0 and (at := self.layout.locate(offset, offset + length)) is not None:
            return self.below.pread(at, length)
        return self.preadv([Extent(offset, length)])[0]

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """The batch, asked of the source below as one."""
        plans = [self._plan(offset, length) for offset, length in extents]
        wanted = [piece for plan in plans for piece in plan if isinstance(piece, Extent)]
        found = iter(self.below.preadv(wanted))
        return [_joined([next(found) if isinstance(piece, Extent) else piece for piece in plan]) for plan in plans]

    def _plan(self, offset: int, length: int) -> list[Extent | bytes]:
        stop = offset + length
        if offset < 0 or length < 0 or offset > self.size:
            raise layout.absent(offset, length, self.layout.space)
        head = self.layout.head[offset:stop]
        plan: list[Extent | bytes] = [head] if head else []
        for run in self.layout.walk(offset, min(stop, self.size)):
            size = run.stop - run.start
            plan.append(Extent(run.offset, size) if run.kind is Kind.DATA else bytes(size))
        if stop > self.size:
            raise layout.absent(self.size, stop - self.size, self.layout.space)
        return plan


def _joined(pieces: list[memoryview | bytes]) -> memoryview:
    return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))


class PhysicalSpace(Space):
    """Physical memory of an ELF core: position = paddr."""

    def __init__(self, below: Source, elf: Elf) -> None:
        super().__init__(below, layout.physical(elf, below.size))


class VirtualSpace(Space):
    """Memory at the virtual addresses of an ELF core's PT_LOADs: position = vaddr."""

    def __init__(self, below: Source, elf: Elf) -> None:
        super().__init__(below, layout.virtual(elf, below.size))
