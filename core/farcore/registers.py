"""NT_PRSTATUS: a CPU's general registers when it stopped, and where each machine's struct elf_prstatus has them.

The struct's head is the same everywhere (include/linux/elfcore.h): pr_cursig at byte 12, then two longs, pr_pid and three
more ids, four timevals, and pr_reg: byte 112 where a long has 8 bytes, byte 72 where it has 4. pr_reg is each machine's
elf_gregset_t, in the order of its uapi asm/ptrace.h (struct user_regs_struct on x86). Names are those of gdb's target
descriptions (gdb/features), the kernel's own where gdb has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from farcore.elf import Data
from farcore.hosts import EM_386, EM_486, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_S390_OLD, EM_X86_64

_SIGNAL_OFFSET: Final = 12
_ORDER: Final[dict[Data, Literal["little", "big"]]] = {"LE": "little", "BE": "big"}


class Register(NamedTuple):
    """``size`` bytes at byte ``offset`` of the note's desc."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """struct elf_prstatus of one machine: its size and where the pid (4 bytes) and the registers are, in bytes."""

    machine: str
    bits: Literal[32, 64]
    prstatus_size: int
    pid_offset: int
    registers: tuple[Register, ...]


@dataclass(frozen=True, slots=True)
class Prstatus:
    """What one NT_PRSTATUS says. ``pid`` is the task's, 0 when idle; QEMU's is the CPU's number plus 1, or no use at all."""

    pid: int
    signal: int
    registers: dict[str, int]


def _run(offset: int, size: int, names: str) -> tuple[Register, ...]:
    return tuple(Register(name, offset + size * place, size) for place, name in enumerate(names.split()))


_X86_64: Final = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
)
_I386: Final = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss"
_AARCH64: Final = (
    "x0 x1 x2 x3 x4 x5 x6 x7 x8 x9 x10 x11 x12 x13 x14 x15 x16 x17 x18 x19 x20 x21 x22 x23 x24 x25 x26 x27 x28 x29 x30 "
    "sp pc cpsr"
)
_ARM: Final = "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 sp lr pc cpsr orig_r0"
_S390X: Final = "pswm pswa r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15"
_S390X_ACCESS: Final = "acr0 acr1 acr2 acr3 acr4 acr5 acr6 acr7 acr8 acr9 acr10 acr11 acr12 acr13 acr14 acr15"
_PPC64: Final = (
    "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 r26 r27 r28 r29 r30 r31 "
    "pc msr orig_r3 ctr lr xer cr softe trap dar dsisr result"
)
_RISCV: Final = "pc ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"

X86_64: Final = Layout("x86_64", 64, 336, 32, _run(112, 8, _X86_64))
I386: Final = Layout("i386", 32, 144, 24, _run(72, 4, _I386))
AARCH64: Final = Layout("aarch64", 64, 392, 32, _run(112, 8, _AARCH64))
ARM: Final = Layout("arm", 32, 148, 24, _run(72, 4, _ARM))
S390X: Final = Layout("s390x", 64, 336, 32, _run(112, 8, _S390X) + _run(256, 4, _S390X_ACCESS) + _run(320, 8, "orig_r2"))
PPC64: Final = Layout("ppc64", 64, 504, 32, _run(112, 8, _PPC64))
RISCV32: Final = Layout("riscv32", 32, 204, 24, _run(72, 4, _RISCV))
RISCV64: Final = Layout("riscv64", 64, 376, 32, _run(112, 8, _RISCV))

# QEMU writes ELF64 for i386 guests, kexec-tools on demand ELF32 for x86_64 (--elf32-core-headers): notes follow the machine.
_LAYOUTS: Final = {
    (EM_X86_64, 64): X86_64,
    (EM_X86_64, 32): X86_64,
    (EM_386, 32): I386,
    (EM_386, 64): I386,
    (EM_486, 32): I386,
    (EM_486, 64): I386,
    (EM_AARCH64, 64): AARCH64,
    (EM_ARM, 32): ARM,
    (EM_S390, 64): S390X,
    (EM_S390_OLD, 64): S390X,
    (EM_PPC64, 64): PPC64,
    (EM_RISCV, 32): RISCV32,
    (EM_RISCV, 64): RISCV64,
}


def layout(machine: int, bits: int) -> Layout | None:
    """What e_machine and the ELF class promise; None for a machine that is not known here."""
    return _LAYOUTS.get((machine, bits))


def layout_of(size: int, machine: int, bits: int) -> Layout | None:
    """The layout that an NT_PRSTATUS of ``size`` bytes really has; None where it is neither the promised nor Xen's.

    A 64-bit Xen hypervisor writes x86_64 notes under the e_machine that its 32-bit dom0 gave to the header.
    """
    promised = layout(machine, bits)
    if promised is I386 and size == X86_64.prstatus_size:
        return X86_64
    return promised if promised is not None and size == promised.prstatus_size else None


def read(desc: bytes, layout: Layout, data: Data) -> Prstatus | None:
    """The note's values; None where ``desc`` is shorter than the layout: half a register set misleads more than none."""
    if len(desc) < layout.prstatus_size:
        return None
    order = _ORDER[data]

    def field(offset: int, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(desc[offset : offset + size], order, signed=signed)

    registers = {name: field(offset, size) for name, offset, size in layout.registers}
    return Prstatus(field(layout.pid_offset, 4, signed=True), field(_SIGNAL_OFFSET, 2, signed=True), registers)
