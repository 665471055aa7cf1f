"""A dump's memory for drgn: read through the cache of its Source, so that a miss costs a round trip and a read none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from farcore import segments
from farcore.errors import FaultError
from farcore_client.target import Target

if TYPE_CHECKING:
    from drgn import Program


def add(program: Program, target: Target) -> None:
    """The segments that drgn makes of a core file, over ``target``: physical memory, and the virtual addresses of PT_LOADs.

    Where no PT_LOAD says, the page tables lead drgn. An excluded page is drgn.FaultError here, and zeros to a drgn on a file.
    """
    read = _reader(target)
    if target.elf.unlisted:  # too many for drgn as well; the server knows what is not there
        program.add_memory_segment(0, target.physical.size, partial(read, 0), True)
        return
    runs = segments.physical(target.elf, target.vmcore.size)
    for start, stop in zip(runs.start.tolist(), runs.stop.tolist(), strict=True):
        program.add_memory_segment(start, stop - start, partial(read, start), True)
    loads = target.elf.loads
    loads = loads[~(segments.wraps(loads, "paddr") | segments.wraps(loads, "vaddr"))]
    sizes = np.maximum(loads["filesz"], loads["memsz"])
    for vaddr, paddr, size in zip(loads["vaddr"].tolist(), loads["paddr"].tolist(), sizes.tolist(), strict=True):
        if size:
            program.add_memory_segment(vaddr, size, partial(read, paddr), False)


def _reader(target: Target) -> Callable[[int, int, int, int, bool], memoryview]:
    import drgn

    def read(paddr: int, address: int, count: int, offset: int, physical: bool) -> memoryview:
        try:
            return target.physical.pread(paddr + offset, count)
        except FaultError as error:
            raise drgn.FaultError(str(error), address + error.address - paddr - offset) from error

    return read
