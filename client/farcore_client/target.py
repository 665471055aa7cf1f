"""Target: what a debugger needs of a dump, whichever door it comes through: bytes by file position and by address, CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from farcore import notes, registers, vmcoreinfo, xen
from farcore.elf import Elf
from farcore.notes import Note
from farcore.registers import Prstatus
from farcore.source import Source
from farcore.vmcoreinfo import Vmcoreinfo


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A dump as one ELF ``vmcore``, and its ``physical`` memory (position = paddr); both read as Sources are.

    ``cpus``: one entry an NT_PRSTATUS, in file order; None where its layout is not known.
    """

    vmcore: Source
    physical: Source
    elf: Elf
    notes: tuple[Note, ...]
    vmcoreinfo: Vmcoreinfo | None
    cpus: tuple[Prstatus | None, ...]

    @property
    def is_xen(self) -> bool:
        """Whether ``physical`` is the machine memory of a whole Xen machine, which is not what its dom0 took for physical."""
        return xen.is_xen(self.notes)

    @classmethod
    def open(cls, vmcore: Source, physical: Source) -> Self:
        """Reads header, program headers (of very many the first) and notes; BadDumpError as Elf.open."""
        elf = Elf.first(vmcore)
        found = notes.read(vmcore, elf).notes
        cpus = tuple(_registers(note, elf) for note in found if note.is_prstatus)
        return cls(vmcore, physical, elf, found, vmcoreinfo.of_linux(found), cpus)


def _registers(note: Note, elf: Elf) -> Prstatus | None:
    layout = registers.layout_of(note.size, elf.header.machine, elf.header.bits)
    return None if layout is None else registers.read(note.desc, layout, elf.header.data)
