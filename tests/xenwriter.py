"""Dumps of whole Xen machines, after xen/include/xen/elfcore.h (crash_xen_info_t, crash_xen_core_t); knows nothing of farcore.

dump(bits=64, machine=3)    a 64-bit hypervisor's notes under the header of a 32-bit dom0
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.elfwriter import Dump, Note, Segment, load, note

INFO, REGS = 0x1000001, 0x1000002
PRSTATUS = {32: 144, 64: 336}
VMCOREINFO_XEN = b"OSRELEASE=4.17\nPAGESIZE=4096\nSYMBOL(frame_table)=ffff82e000000000\nSIZE(page_info)=32\n"
PHYS_START, P2M = 0x7D000000, 0x12345


def longs(bits: int, *values: int) -> bytes:
    """Little-endian longs."""
    return struct.pack(f"<{len(values)}{'Q' if bits == 64 else 'I'}", *values)


def cpu(bits: int, cr3: int) -> list[Note]:
    """What a hypervisor writes for each CPU."""
    return [("CORE", 1, bytes(PRSTATUS[bits])), ("Xen", REGS, longs(bits, 0x80050033, 0, cr3, 0x2660))]


def info(bits: int, *, x86: bool = True) -> Note:
    """Xen 4.17, untainted."""
    more = (PHYS_START, P2M) if x86 else ()
    return "Xen", INFO, longs(bits, 4, 17, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0, *more)


def dump(
    *,
    bits: int = 64,
    machine: int = 62,
    elf: int = 64,
    cr3: Sequence[int] = (0x1000,),
    memory: Sequence[Segment] = (),
    dom0: bytes = b"",
) -> Dump:
    """A vmcore of such a machine; ``elf`` is the class of its header."""
    notes = [one for each in cr3 for one in cpu(bits, each)]
    notes += [info(bits), ("VMCOREINFO_XEN", 0, VMCOREINFO_XEN)]
    if dom0:
        notes.append(("VMCOREINFO", 0, dom0))
    return Dump([note(*notes), *(memory or [load(b"machine memory", paddr=0x1000)])], bits=elf, machine=machine)
