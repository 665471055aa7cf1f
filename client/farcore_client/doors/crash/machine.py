"""Machine: which crash a dump needs, and what that is told of the machine that crashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from farcore.hosts import (
    EM_386,
    EM_486,
    EM_AARCH64,
    EM_ARM,
    EM_LOONGARCH,
    EM_MIPS,
    EM_PPC,
    EM_PPC64,
    EM_RISCV,
    EM_S390,
    EM_X86_64,
)
from farcore_client.target import Target

# What crash itself calls the machines that it is built for (MACHINE_TYPE in its defs.h).
MACHINES: Final[Mapping[tuple[int, int], str]] = {
    (EM_386, 32): "X86",
    (EM_386, 64): "X86",
    (EM_486, 32): "X86",
    (EM_X86_64, 64): "X86_64",
    (EM_X86_64, 32): "X86_64",
    (EM_ARM, 32): "ARM",
    (EM_AARCH64, 64): "ARM64",
    (EM_PPC, 32): "PPC",
    (EM_PPC64, 64): "PPC64",
    (EM_S390, 64): "S390X",
    (EM_RISCV, 64): "RISCV64",
    (EM_MIPS, 32): "MIPS",
    (EM_MIPS, 64): "MIPS64",
    (EM_LOONGARCH, 64): "LOONGARCH64",
}
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Machine:
    """What crash is told of the machine: its name, how many CPUs, bytes a page, whether registers can be asked for."""

    name: str
    cpus: int
    page_size: int
    registers: bool

    @classmethod
    def of(cls, target: Target) -> Machine | None:
        """None where no crash is built for such a machine."""
        header, known = target.elf.header, target.vmcoreinfo
        name = MACHINES.get((header.machine, header.bits))
        size = (known and known.page_size) or _PAGE
        # crash for the other machines finds the registers in the kernel's own crash_notes, and more of them than can be said.
        return None if name is None else cls(name, len(target.cpus), size, name == "X86_64")
