"""Xen: what a dump of a whole Xen machine says of its hypervisor, under which Linux (dom0) ran as one of several guests.

The hypervisor's notes are its own (xen/include/xen/elfcore.h, Xen 4.17; numbers in its public elfnote.h): one
XEN_ELFNOTE_CRASH_INFO, and a XEN_ELFNOTE_CRASH_REGS a CPU. Their longs are the hypervisor's, 32 or 64 bits, whatever machine
the header's e_machine names: that is dom0's. Physical addresses are machine addresses, which no guest knows by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from farcore import vmcoreinfo
from farcore.elf import Data
from farcore.notes import XEN_ELFNOTE_CRASH_INFO, XEN_ELFNOTE_CRASH_REGS, Note
from farcore.vmcoreinfo import Vmcoreinfo

# Longs in crash_xen_info_t: eight (version, changeset, compiler, date, time, tainted), on x86 with xen_phys_start and the p2m.
_INFO_LONGS: Final = 8
_X86_LONGS: Final = 10
# cr0, cr2, cr3, cr4 of crash_xen_core_t.
_CR3: Final = 2
_REGS_LONGS: Final = 4


@dataclass(frozen=True, slots=True)
class Xen:
    """``bits``: the hypervisor's longs, None where no note tells. ``cr3``: one a CPU that left it, the crashed one's last."""

    bits: Literal[32, 64] | None = None
    major: int | None = None
    minor: int | None = None
    phys_start: int | None = None
    p2m: int | None = None
    cr3: tuple[int, ...] = ()
    vmcoreinfo: Vmcoreinfo | None = None

    @property
    def version(self) -> str | None:
        """ "4.17"."""
        return None if self.major is None else f"{self.major}.{self.minor}"


def is_xen(notes: Iterable[Note]) -> bool:
    """Whether the dump is of a whole Xen machine: its physical memory is then machine memory."""
    return any(note.name in ("Xen", "VMCOREINFO_XEN") for note in notes)


def of(notes: Sequence[Note], data: Data) -> Xen | None:
    """What the notes say of a hypervisor; None of a machine without one. Of several notes of a kind the last counts."""
    if not is_xen(notes):
        return None
    info, regs = [], []
    for note in notes:
        if note.name == "Xen" and note.type == XEN_ELFNOTE_CRASH_INFO:
            info.append(note.desc)
        elif note.name == "Xen" and note.type == XEN_ELFNOTE_CRASH_REGS:
            regs.append(note.desc)
    bits = _bits(info, regs)
    longs = _longs(info[-1], bits, data) if info and bits else []
    tables = [_longs(desc, bits, data)[_CR3] for desc in regs if bits and len(desc) >= _REGS_LONGS * bits // 8]
    x86 = len(longs) >= _X86_LONGS
    return Xen(
        bits,
        longs[0] if len(longs) >= _INFO_LONGS else None,
        longs[1] if len(longs) >= _INFO_LONGS else None,
        longs[_INFO_LONGS] if x86 else None,
        longs[_INFO_LONGS + 1] if x86 else None,
        tuple(tables),
        vmcoreinfo.of_xen(notes),
    )


def _bits(info: list[bytes], regs: list[bytes]) -> Literal[32, 64] | None:
    """The hypervisor's longs, by the notes' sizes."""
    size, counts = (len(info[-1]), (_INFO_LONGS, _X86_LONGS)) if info else (len(regs[-1]), (_REGS_LONGS,)) if regs else (0, ())
    if size in [4 * count for count in counts]:
        return 32
    return 64 if size in [8 * count for count in counts] else None


def _longs(desc: bytes, bits: int, data: Data) -> list[int]:
    size = bits // 8
    order: Literal["little", "big"] = "little" if data == "LE" else "big"
    return [int.from_bytes(desc[at : at + size], order) for at in range(0, len(desc) - size + 1, size)]
