"""The cut of a vmcore: of the same machine the pages that somebody reads, and holes where the others were.

A page is kept by its physical address, so wherever the source describes it twice (kernel text) the cut does too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from .coreelf import PAGE, Core, Segment, read, write
from .touched import Read

Pages = set[int]  # page frame numbers


def frames(core: Core, reads: Iterable[Read]) -> Pages:
    """The page frames that these reads of the file lie in; reads of headers and notes are in none."""
    found: Pages = set()
    for offset, length in set(reads):
        for load in core.loads:
            first = max(offset, load.offset)
            last = min(offset + length, load.offset + load.filesz) - 1
            if first <= last:
                shift = load.paddr - load.offset
                found |= set(range((first + shift) // PAGE, (last + shift) // PAGE + 1))
    return found


def cut(source: Path, keep: Pages, gap: int, to: Path) -> list[Segment]:
    """Writes the cut and returns its PT_LOADs. Holes of up to `gap` pages are not worth one: they are filled."""
    core = read(source)
    loads = [part for load in core.loads for part in _parts(load, keep, gap)]
    write(to, core, loads, core.notes())
    return read(to).loads


def _parts(load: Segment, keep: Pages, gap: int) -> Iterator[Segment]:
    """The kept runs of a segment. A page that the segment covers only in part stays as short as it was."""
    end = load.paddr + load.filesz
    inside = sorted(p for p in keep if load.paddr // PAGE <= p <= (end - 1) // PAGE)
    for first, last in _runs(inside, gap):
        start, stop = max(first * PAGE, load.paddr), min((last + 1) * PAGE, end)
        moved = start - load.paddr
        size = stop - start
        yield replace(load, offset=load.offset + moved, vaddr=load.vaddr + moved, paddr=start, filesz=size, memsz=size)


def _runs(numbers: list[int], gap: int) -> Iterator[tuple[int, int]]:
    """Runs of ascending numbers, first and last; numbers no further apart than `gap` missing ones are one run."""
    if not numbers:
        return
    first = last = numbers[0]
    for number in numbers[1:]:
        if number - last > gap + 1:
            yield first, last
            first = number
        last = number
    yield first, last
