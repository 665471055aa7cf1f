"""Target descriptions: which registers a machine has for gdb, in gdb's order and by its names, and their values in a packet.

Feature and register names, and which of them gdb insists on: its manual, "Standard Target Features". What NT_PRSTATUS has none
of (the floating point's, without which gdb takes no x86 and makes up others on aarch64) is told as unavailable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from farcore import registers
from farcore.elf import Data
from farcore.registers import Prstatus
from farcore_client.target import Target

ORDER: Final[dict[Data, Literal["little", "big"]]] = {"LE": "little", "BE": "big"}


# A type to be shown as a vector register, which `info registers` leaves out; no dump has their values.
_VECTOR: Final = "vec128"


class Register(NamedTuple):
    """``bits`` wide; ``kind``: a type of gdb's or of its feature."""

    name: str
    bits: int
    kind: str = "int"


class Flags(NamedTuple):
    """A register's bits by name; (name, low, high)."""

    kind: str
    bits: int
    fields: tuple[tuple[str, int, int], ...]


class Feature(NamedTuple):
    """One of gdb's standard features."""

    name: str
    registers: tuple[Register, ...]
    flags: tuple[Flags, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """A machine as gdb knows it: ``architecture`` is BFD's name."""

    architecture: str
    features: tuple[Feature, ...]

    @property
    def registers(self) -> tuple[Register, ...]:
        """All of them, in the order in which gdb numbers them."""
        return tuple(register for feature in self.features for register in feature.registers)

    @property
    def xml(self) -> bytes:
        """target.xml."""
        features = "".join(map(_feature, self.features))
        return (
            '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n'
            f"<architecture>{self.architecture}</architecture>\n<osabi>GNU/Linux</osabi>\n{features}</target>\n"
        ).encode()


def hexadecimal(register: Register, cpu: Prstatus | None, data: Data) -> bytes:
    """The register's value as a packet has it: its bytes in the machine's order, or x for each digit that is not known."""
    value = 0 if register.name == "zero" else None if cpu is None else cpu.registers.get(register.name)
    if value is None:
        return b"x" * (register.bits // 4)
    size = register.bits // 8
    return (value & ((1 << register.bits) - 1)).to_bytes(size, ORDER[data]).hex().encode()


def of(target: Target) -> Description | None:
    """The description of the machine that the dump's registers are of; None where there is none here."""
    return _DESCRIPTIONS.get(machine(target))


def machine(target: Target) -> str:
    """That machine by the name of its Layout; "" where it has none."""
    header = target.elf.header
    promised = registers.layout(header.machine, header.bits)
    sizes = (note.size for note in target.notes if note.is_prstatus)
    found = (registers.layout_of(size, header.machine, header.bits) for size in sizes)
    layout = next((each for each in found if each), promised)
    return layout.machine if layout else ""


def _feature(feature: Feature) -> str:
    lines = [f'<feature name="{feature.name}">\n']
    if any(register.kind == _VECTOR for register in feature.registers):
        lines.append(f'<vector id="{_VECTOR}" type="uint8" count="16"/>\n')
    for kind, bits, fields in feature.flags:
        lines.append(f'<flags id="{kind}" size="{bits // 8}">\n')
        lines += [f'<field name="{name}" start="{low}" end="{high}"/>\n' for name, low, high in fields]
        lines.append("</flags>\n")
    for name, bits, kind in feature.registers:
        lines.append(f'<reg name="{name}" bitsize="{bits}" type="{kind}"/>\n')
    return "".join(lines) + "</feature>\n"


def _all(names: str | Iterable[str], bits: int, kind: str = "int") -> tuple[Register, ...]:
    return tuple(Register(name, bits, kind) for name in (names.split() if isinstance(names, str) else names))


def _numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def _bits(names: str) -> tuple[tuple[str, int, int], ...]:
    """`CF:0 EL:2-3`, as fields."""
    found = []
    for each in names.split():
        name, _, place = each.partition(":")
        low, _, high = place.partition("-")
        found.append((name, int(low), int(high or low)))
    return tuple(found)


_EFLAGS: Final = Flags(
    "i386_eflags",
    32,
    (
        *_bits("CF:0"),
        ("", 1, 1),
        *_bits("PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21"),
    ),
)
_CPSR: Final = Flags(
    "cpsr_flags",
    32,
    _bits("SP:0 EL:2-3 nRW:4 F:6 I:7 A:8 D:9 BTYPE:10-11 SSBS:12 IL:20 SS:21 PAN:22 UAO:23 DIT:24 TCO:25 V:28 C:29 Z:30 N:31"),
)


def _x86(pointer: int, general: str, program_counter: str, more: tuple[Feature, ...]) -> tuple[Feature, ...]:
    core = (
        *(Register(name, pointer, "data_ptr" if name in ("rbp", "rsp", "ebp", "esp") else "int") for name in general.split()),
        Register(program_counter, pointer, "code_ptr"),
        Register("eflags", 32, "i386_eflags"),
        *_all("cs ss ds es fs gs", 32),
        *_all(_numbered("st", 8), 80, "i387_ext"),
        *_all("fctrl fstat ftag fiseg fioff foseg fooff fop", 32),
    )
    return (Feature("org.gnu.gdb.i386.core", core, (_EFLAGS,)), *more)


_X86_64: Final = Description(
    "i386:x86-64",
    _x86(
        64,
        "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15",
        "rip",
        (
            Feature("org.gnu.gdb.i386.sse", (*_all(_numbered("xmm", 16), 128, _VECTOR), Register("mxcsr", 32))),
            Feature("org.gnu.gdb.i386.linux", _all("orig_rax", 64)),
            Feature("org.gnu.gdb.i386.segments", _all("fs_base gs_base", 64)),
        ),
    ),
)
_I386: Final = Description(
    "i386",
    _x86(
        32,
        "eax ecx edx ebx esp ebp esi edi",
        "eip",
        (
            Feature("org.gnu.gdb.i386.sse", (*_all(_numbered("xmm", 8), 128, _VECTOR), Register("mxcsr", 32))),
            Feature("org.gnu.gdb.i386.linux", _all("orig_eax", 32)),
        ),
    ),
)
_AARCH64: Final = Description(
    "aarch64",
    (
        Feature(
            "org.gnu.gdb.aarch64.core",
            (
                *_all(_numbered("x", 31), 64),
                Register("sp", 64, "data_ptr"),
                Register("pc", 64, "code_ptr"),
                Register("cpsr", 32, "cpsr_flags"),
            ),
            (_CPSR,),
        ),
        Feature("org.gnu.gdb.aarch64.fpu", (*_all(_numbered("v", 32), 128, _VECTOR), *_all("fpsr fpcr", 32))),
    ),
)
_ARM: Final = Description(
    "arm",
    (
        Feature(
            "org.gnu.gdb.arm.core",
            (
                *_all(_numbered("r", 13), 32, "uint32"),
                Register("sp", 32, "data_ptr"),
                Register("lr", 32),
                Register("pc", 32, "code_ptr"),
                Register("cpsr", 32),
            ),
        ),
    ),
)
_S390X: Final = Description(
    "s390:64-bit",
    (
        Feature("org.gnu.gdb.s390.core", (*_all("pswm pswa", 64, "uint64"), *_all(_numbered("r", 16), 64, "uint64"))),
        Feature("org.gnu.gdb.s390.acr", _all(_numbered("acr", 16), 32, "uint32")),
        Feature("org.gnu.gdb.s390.fpr", (Register("fpc", 32, "uint32"), *_all(_numbered("f", 16), 64, "ieee_double"))),
        Feature("org.gnu.gdb.s390.linux", _all("orig_r2", 64, "uint64")),
    ),
)
_PPC64: Final = Description(
    "powerpc:common64",
    (
        Feature(
            "org.gnu.gdb.power.core",
            (
                *_all(_numbered("r", 32), 64, "uint64"),
                Register("pc", 64, "code_ptr"),
                Register("msr", 64, "uint64"),
                Register("cr", 32, "uint32"),
                Register("lr", 64, "code_ptr"),
                Register("ctr", 64, "uint64"),
                Register("xer", 32, "uint32"),
            ),
        ),
        Feature("org.gnu.gdb.power.linux", _all("orig_r3 trap", 64)),
    ),
)
_RISCV_NAMES: Final = "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6 pc"
_POINTERS: Final = {"ra": "code_ptr", "pc": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"}


def _riscv(bits: Literal[32, 64]) -> Description:
    every = tuple(Register(name, bits, _POINTERS.get(name, "int")) for name in _RISCV_NAMES.split())
    return Description(f"riscv:rv{bits}", (Feature("org.gnu.gdb.riscv.cpu", every),))


_DESCRIPTIONS: Final = {
    "x86_64": _X86_64,
    "i386": _I386,
    "aarch64": _AARCH64,
    "arm": _ARM,
    "s390x": _S390X,
    "ppc64": _PPC64,
    "riscv32": _riscv(32),
    "riscv64": _riscv(64),
}
