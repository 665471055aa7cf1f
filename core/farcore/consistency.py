"""What in a dump does not fit together: sentences for a person, and never a reason to refuse.

The header check (arch.py) decides; this looks at what the header leads to: the PT_LOADs, the file's length, the notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from farcore import registers, segments, vmcoreinfo, xen
from farcore.elf import PN_XNUM, Elf, Segments
from farcore.hosts import machine_name
from farcore.notes import Note, Notes
from farcore.runs import U64

# A file can have 65,536 notes, each of another size: the first ones tell the story.
_MAX_SIZES: Final = 3


def warnings(elf: Elf, size: int, notes: Notes) -> tuple[str, ...]:
    """One sentence for each thing odd in a file of ``size`` bytes, its notes' own warnings included; O(n log n) in PT_LOADs."""
    return (*_loads(elf, size), *of_notes(elf, notes))


def of_notes(elf: Elf, notes: Notes) -> Iterator[str]:
    """The notes' part of ``warnings``."""
    yield from notes.warnings
    if not notes.notes:
        yield "there are no notes: no registers, and no VMCOREINFO, which crash and drgn want"
    yield from _prstatus(elf, notes.notes)
    yield from _xen(elf, notes.notes)


def missing(elf: Elf, size: int) -> int:
    """How many bytes short a file of ``size`` bytes is of the end of its last PT_LOAD: more than 0 is an incomplete dump."""
    return max(0, int(_ends(elf.loads).max(initial=0)) - size)


def _ends(loads: Segments) -> U64:
    """Where in the file each PT_LOAD ends; 0 for one that has nothing there."""
    filesz = loads["filesz"]
    return np.where(filesz > 0, loads["offset"] + filesz, np.uint64(0))


def _repeated(loads: Segments) -> int:
    """How many PT_LOADs start where another, of a lower or the same p_paddr, still describes physical memory."""
    start = loads["paddr"]
    stop = start + np.maximum(loads["filesz"], loads["memsz"])
    used = np.flatnonzero(stop > start)  # neither empty nor wrapping
    start, stop = start[used], stop[used]
    order = np.argsort(start, kind="stable")
    return int(np.count_nonzero(start[order][1:] < np.maximum.accumulate(stop[order])[:-1]))


def _loads(elf: Elf, size: int) -> Iterator[str]:
    loads = elf.loads
    if not len(loads):
        yield "there is no PT_LOAD: the dump describes no memory"
    ends = _ends(loads)
    if cut := np.count_nonzero(ends > np.uint64(size)):
        short = int(ends.max()) - size
        yield f"the file is {short:,} bytes short of what {cut:,} of its {len(loads):,} PT_LOADs promise: an incomplete dump"
    if wrapped := np.count_nonzero(segments.wraps(loads, "paddr")):
        yield f"p_paddr + p_memsz of {wrapped:,} of {len(loads):,} PT_LOADs wraps 2^64: physical memory is read without them"
    if repeated := _repeated(loads):
        yield (
            f"{repeated:,} of {len(loads):,} PT_LOADs describe physical memory again "
            f"(normal: kernel text is described twice, and QEMU's paging=true writes a PT_LOAD a mapping)"
        )
    if elf.header.phnum == PN_XNUM and len(elf.segments) != PN_XNUM:
        # makedumpfile and crash's netdump.c have no PN_XNUM, nor has the kernel.
        yield f"e_phnum stands for {len(elf.segments):,} program headers (PN_XNUM): makedumpfile and crash take it for 65,535"


def _prstatus(elf: Elf, notes: Iterable[Note]) -> Iterator[str]:
    """One sentence a size that is not the one of e_machine's struct elf_prstatus, most frequent first."""
    machine, bits = elf.header.machine, elf.header.bits
    promised = registers.layout(machine, bits)
    if promised is None:
        return
    sizes = Counter(note.size for note in notes if note.is_prstatus)
    odd = [(size, count) for size, count in sizes.most_common() if size != promised.prstatus_size]
    for size, count in odd[:_MAX_SIZES]:
        said = f"{count:,} of {sizes.total():,} NT_PRSTATUS have {size:,} bytes, {machine_name(machine)}'s have"
        real = registers.layout_of(size, machine, bits)
        if real is None:
            yield f"{said} {promised.prstatus_size}: believe e_machine, and no registers of theirs"
        else:
            yield (
                f"{said} {promised.prstatus_size} and {real.machine}'s {real.prstatus_size}: "
                f"believe the notes (a 64-bit Xen hypervisor writes its own under a 32-bit dom0's header)"
            )


def _xen(elf: Elf, notes: Sequence[Note]) -> Iterator[str]:
    """What to make of a dump of a whole Xen machine, and of notes that are not of the machine that e_machine names."""
    found = xen.of(notes, elf.header.data)
    if found is None:
        return
    yield "a dump of a whole Xen machine: its physical addresses are machine addresses, the hypervisor's and not dom0's"
    machine = elf.header.machine
    promised = registers.layout(machine, elf.header.bits)
    if promised and found.bits and found.bits != promised.bits:
        yield (
            f"the Xen notes are of a {found.bits}-bit hypervisor, e_machine is {machine_name(machine)}: "
            f"believe the notes about the machine and its registers, and e_machine about dom0"
        )
    dom0 = vmcoreinfo.of_linux(notes)
    word = dom0 and dom0.type_size("atomic_long_t")
    if promised and word in (4, 8) and 8 * word != promised.bits:
        yield (
            f"VMCOREINFO is of a {8 * word}-bit dom0, e_machine is {machine_name(machine)}: "
            f"believe e_machine about the machine and its registers, and VMCOREINFO about dom0"
        )
