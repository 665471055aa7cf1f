"""PT_LOADs as runs of an address space: which paddr (or vaddr) lies where in the file, which is excluded, which absent.

[p_paddr, p_paddr + p_filesz) is data as far as the file has it; the tail up to p_memsz is excluded, whoever wrote it
(makedumpfile -E leaves filtered pages out so). Overlaps describe the same memory, so any of them would do: data wins over
an exclusion, and the first PT_LOAD over later ones, in the order in which fs/proc/vmcore.c walks its list.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from farcore.arrays import Array
from farcore.elf import Elf, Segments
from farcore.runs import Kind, Runs, paint


def wraps(loads: Segments, field: Literal["paddr", "vaddr"]) -> Array[np.bool_]:
    """Which segments reach 2^64 or past it: a p_paddr of ~0 says that there is none (as /proc/kcore writes)."""
    end = loads[field] + np.maximum(loads["filesz"], loads["memsz"])
    reaches: Array[np.bool_] = end < loads[field]
    return reaches


def physical(elf: Elf, size: int) -> Runs:
    """Runs by physical address, for a file of ``size`` bytes."""
    return _runs(elf, "paddr", size)


def virtual(elf: Elf, size: int) -> Runs:
    """Runs by the virtual addresses that the program headers claim."""
    return _runs(elf, "vaddr", size)


def span(elf: Elf) -> int:
    """One past the highest physical address described: the highest p_paddr + p_memsz."""
    loads = _placed(elf, "paddr")
    return int((loads["paddr"] + np.maximum(loads["filesz"], loads["memsz"])).max(initial=0))


def _placed(elf: Elf, field: Literal["paddr", "vaddr"]) -> Segments:
    """The PT_LOADs that describe any memory at all. ELF32's ~0 means "none" as well, though no 64-bit sum wraps there."""
    loads = elf.loads
    empty = np.maximum(loads["filesz"], loads["memsz"]) == 0
    placed: Segments = loads[~(empty | wraps(loads, field) | (loads[field] == (1 << elf.header.bits) - 1))]
    return placed


def _runs(elf: Elf, field: Literal["paddr", "vaddr"], size: int) -> Runs:
    loads = _placed(elf, field)
    start, offset, filesz = loads[field], loads["offset"], loads["filesz"]
    in_file = np.minimum(filesz, np.uint64(size) - np.minimum(offset, np.uint64(size)))
    zeros = np.zeros(len(loads), np.uint64)
    kinds = np.repeat(np.array([Kind.DATA, Kind.EXCLUDED], np.uint8), len(loads))
    return paint(
        np.concatenate([start, start + filesz]),
        np.concatenate([start + in_file, start + np.maximum(filesz, loads["memsz"])]),
        np.concatenate([offset, zeros]),
        kinds,
    )
