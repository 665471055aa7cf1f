"""Layout: one byte resource of a dump, said as runs over the dump's own bytes.

The file as stored, physical memory by address, a vmcore in the kernel's own layout: all three are a head that farcore
composed (or none) and runs that say which position is which byte of the source below, which is zero, and which is not
there. Whoever serves or reads one walks its pieces; nobody needs to know which of the three it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from farcore import segments
from farcore.elf import Elf
from farcore.errors import FaultError, FaultKind, Space
from farcore.runs import Kind, Run, Runs, paint

# Up to so many runs locate() has as lists, in 150 bytes each, which bisect fifty times faster than arrays; of more it looks
# into the arrays themselves, at a third of that speed.
MAX_LISTED: Final = 1 << 14


@dataclass(frozen=True, eq=False)
class Layout:
    """``size`` positions of ``space``: first ``head``, then what ``runs`` say (positions no run covers are absent)."""

    space: Space
    size: int
    runs: Runs
    head: bytes = b""

    def locate(self, start: int, stop: int) -> int | None:
        """Where in the source below all of [start, stop) lies, if one run of data holds it; None otherwise. 0.4 us."""
        run = self.around(start)
        return start + run[2] if run is not None and stop <= run[1] else None

    def around(self, position: int) -> tuple[int, int, int] | None:
        """[start, stop) of the run of data that holds ``position``, and how much further on it lies in the source below."""
        starts, stops, offsets, kinds = self._columns
        i = bisect_right(starts, position) - 1
        if i < 0 or position >= stops[i] or kinds[i]:  # DATA is 0, and this is the hot lane's
            return None
        # A run of ELF32 may go on behind the last virtual address.
        return starts[i], min(stops[i], self.size), offsets[i] - starts[i]

    @cached_property
    def _columns(self) -> tuple[Sequence[int], ...]:
        runs = self.runs
        columns = (runs.start, runs.stop, runs.offset, runs.kind)
        if len(runs) > MAX_LISTED:
            return tuple(column.data for column in columns)
        return tuple(column.tolist() for column in columns)

    def walk(self, start: int, stop: int, *, fill: bool = False) -> Iterator[Run]:
        """The runs of [start, stop) behind the head; FaultError at the first hole, or zeros there if ``fill``."""
        for run in self.runs.walk(max(start, len(self.head)), stop):
            if run.kind <= Kind.ZERO:
                yield run
            elif fill:
                yield run._replace(kind=Kind.ZERO)
            else:
                raise fault(run, self.space)


def fault(run: Run, space: Space) -> FaultError:
    """The FaultError for a run that holds no bytes."""
    kind: FaultKind = "excluded" if run.kind is Kind.EXCLUDED else "absent"
    return FaultError(address=run.start, length=run.stop - run.start, space=space, kind=kind)


def absent(address: int, length: int, space: Space) -> FaultError:
    """The FaultError for positions outside a layout."""
    return FaultError(address=address, length=length, space=space, kind="absent")


def stored(size: int, *, space: Space = "stored") -> Layout:
    """A file as it is."""
    whole = np.array([size], np.uint64)
    return Layout(space, size, paint(whole * 0, whole, whole * 0, np.zeros(1, np.uint8)))


def physical(elf: Elf, size: int) -> Layout:
    """Physical memory of a dump file of ``size`` bytes: the position is the physical address."""
    return Layout("physical", segments.span(elf), segments.physical(elf, size))


def virtual(elf: Elf, size: int) -> Layout:
    """Memory at the virtual addresses that the program headers claim, in the file's own address width."""
    return Layout("virtual", 1 << elf.header.bits, segments.virtual(elf, size))
