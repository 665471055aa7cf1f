"""Which e_machine the crash kernel of each architecture takes, and in which ELF class.

Read in Linux 6.1: elf_check_arch in arch/*/include/asm/elf.h, and include/linux/crash_dump.h, where vmcore_elf32_check_arch
and vmcore_elf64_check_arch default to it. Most look at e_machine alone, so they take either class; riscv, s390 and parisc
compare the class with their own; mips and loongarch define both paths by e_machine; arm defines its ELF64 path as 0.

Two tests of other header fields are left out. arm's (arch/arm/kernel/elf.c: e_entry's alignment, the old ABIs in e_flags)
depends on the CPU, and dumps have 0 there or an EABI. ppc64le's of e_flags lived from Linux 6.5-rc1 to -rc3: it refused
every kdump there was (bugzilla.kernel.org 217702) and was reverted.
"""

from __future__ import annotations

import difflib
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from farcore.elf import Bits, Data
from farcore.errors import SettingsError

EM_386: Final = 3
EM_486: Final = 6
EM_MIPS: Final = 8
EM_PARISC: Final = 15
EM_PPC: Final = 20
EM_PPC64: Final = 21
EM_S390: Final = 22
EM_ARM: Final = 40
EM_SH: Final = 42
EM_SPARCV9: Final = 43
EM_IA_64: Final = 50
EM_X86_64: Final = 62
EM_AARCH64: Final = 183
EM_RISCV: Final = 243
EM_LOONGARCH: Final = 258
EM_S390_OLD: Final = 0xA390

# include/uapi/linux/elf-em.h; the ones without a host below are the rest of those that Linux has run on.
_MACHINES: Final[dict[int, str]] = {
    0: "EM_NONE",
    2: "EM_SPARC",
    EM_386: "EM_386",
    4: "EM_68K",
    EM_486: "EM_486",
    EM_MIPS: "EM_MIPS",
    EM_PARISC: "EM_PARISC",
    EM_PPC: "EM_PPC",
    EM_PPC64: "EM_PPC64",
    EM_S390: "EM_S390",
    EM_ARM: "EM_ARM",
    EM_SH: "EM_SH",
    EM_SPARCV9: "EM_SPARCV9",
    EM_IA_64: "EM_IA_64",
    EM_X86_64: "EM_X86_64",
    92: "EM_OPENRISC",
    94: "EM_XTENSA",
    113: "EM_ALTERA_NIOS2",
    164: "EM_HEXAGON",
    EM_AARCH64: "EM_AARCH64",
    189: "EM_MICROBLAZE",
    195: "EM_ARCV2",
    EM_RISCV: "EM_RISCV",
    252: "EM_CSKY",
    EM_LOONGARCH: "EM_LOONGARCH",
    0x9026: "EM_ALPHA",
    EM_S390_OLD: "EM_S390_OLD",
}


def machine_name(machine: int) -> str:
    """An e_machine as elf-em.h calls it ("EM_X86_64"), else "machine 0x1234"."""
    return _MACHINES.get(machine, f"machine {machine:#x}")


@dataclass(frozen=True, slots=True)
class Host:
    """A crash kernel's architecture by `uname -m`: its word size, its byte order, and the e_machines of each path.

    ``elf32`` and ``elf64`` are what its native test takes in that class; an empty set is a path that takes nothing.
    """

    name: str
    bits: Bits
    data: Data
    elf32: frozenset[int]
    elf64: frozenset[int]
    aliases: tuple[str, ...] = ()

    def native(self, bits: Bits) -> frozenset[int]:
        """The e_machines that the native test takes in an ELF file of that class."""
        return self.elf64 if bits == 64 else self.elf32


def _either(name: str, bits: Bits, data: Data, machines: Iterable[int], *aliases: str) -> Host:
    return Host(name, bits, data, frozenset(machines), frozenset(machines), aliases)


def _own(name: str, bits: Bits, data: Data, machines: Iterable[int], *aliases: str) -> Host:
    taken: frozenset[int] = frozenset(machines)
    return Host(name, bits, data, taken if bits == 32 else frozenset(), taken if bits == 64 else frozenset(), aliases)


# Every architecture that has had CONFIG_CRASH_DUMP, and those whose dumps crash or makedumpfile know. An alias is another
# word of `uname -m` for the same kernel, or a distribution's name for it.
_ARM_LE: Final = ("armv4l", "armv4tl", "armv5tl", "armv5tel", "armv5tejl", "armv6l", "armv7l", "armv7ml", "armv8l")
_ARM_BE: Final = ("armv4b", "armv5teb", "armv6b", "armv7b", "armv8b")
HOSTS: Final = (
    _either("i386", 32, "LE", (EM_386, EM_486), "i486", "i586", "i686"),
    _either("x86_64", 64, "LE", (EM_X86_64,), "amd64"),
    _own("arm", 32, "LE", (EM_ARM,), *_ARM_LE, "armel", "armhf"),
    _own("armeb", 32, "BE", (EM_ARM,), *_ARM_BE),
    _either("aarch64", 64, "LE", (EM_AARCH64,), "arm64"),
    _either("aarch64_be", 64, "BE", (EM_AARCH64,)),
    _own("riscv32", 32, "LE", (EM_RISCV,)),
    _own("riscv64", 64, "LE", (EM_RISCV,)),
    _own("s390", 32, "BE", (EM_S390, EM_S390_OLD)),
    _own("s390x", 64, "BE", (EM_S390, EM_S390_OLD)),
    _either("ppc", 32, "BE", (EM_PPC,), "powerpc"),
    _either("ppc64", 64, "BE", (EM_PPC64,), "powerpc64"),
    _either("ppc64le", 64, "LE", (EM_PPC64,), "ppc64el", "powerpc64le"),
    _either("mips", 32, "BE", (EM_MIPS,)),
    _either("mipsel", 32, "LE", (EM_MIPS,)),
    _either("mips64", 64, "BE", (EM_MIPS,)),
    _either("mips64el", 64, "LE", (EM_MIPS,)),
    _either("loongarch32", 32, "LE", (EM_LOONGARCH,)),
    _either("loongarch64", 64, "LE", (EM_LOONGARCH,), "loong64"),
    _either("ia64", 64, "LE", (EM_IA_64,)),
    _either("sh4", 32, "LE", (EM_SH,), "sh", "sh2", "sh2a", "sh3", "sh4a"),
    _either("sparc64", 64, "BE", (EM_SPARCV9,)),
    _own("parisc", 32, "BE", (EM_PARISC,), "hppa"),
    _own("parisc64", 64, "BE", (EM_PARISC,)),
)

# vmcore_elf_check_arch_cross, by host: x86_32 alone defines it (arch/x86/include/asm/kexec.h, since 2007), and
# crash_dump.h consults it on the ELF64 path alone.
KERNEL_CROSS: Final[Mapping[str, frozenset[int]]] = {"i386": frozenset({EM_X86_64})}

_BY_NAME: Final = {name: host for host in HOSTS for name in (host.name, *host.aliases)}


def host(name: str) -> Host:
    """The Host that `uname -m` or a distribution calls so; SettingsError, with the nearest names, if there is none."""
    found = _BY_NAME.get(name)
    if found is None:
        near = difflib.get_close_matches(name[:64].lower(), _BY_NAME, n=3, cutoff=0.7)
        meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(each.name for each in HOSTS)}"
        raise SettingsError(f"no architecture is called {name!r}: {meant}")
    return found


def this_host(machine: str | None = None, byteorder: str = sys.byteorder) -> Host:
    """The Host of a machine by its `uname -m` and byte order, by default this one's; SettingsError for an unknown one.

    The byte order decides where `uname -m` does not say it: a little-endian mips also calls itself mips.
    """
    name = platform.machine() if machine is None else machine
    try:
        found = host(name)
    except SettingsError as error:
        raise SettingsError(f"this machine's architecture, {name!r}, has no rules here: choose one with --host-arch") from error
    data: Data = "LE" if byteorder == "little" else "BE"
    if found.data == data:
        return found
    same = (each for each in HOSTS if (each.bits, each.elf32, each.elf64) == (found.bits, found.elf32, found.elf64))
    return next((each for each in same if each.data == data), replace(found, data=data))


def host_of(machine: int, bits: Bits, data: Data) -> Host | None:
    """The Host whose native test takes that e_machine in that class, if any: the one of that word size and byte order first."""
    takers = [each for each in HOSTS if machine in each.native(bits)]
    return min(takers, key=lambda each: (each.bits != bits, each.data != data), default=None)
