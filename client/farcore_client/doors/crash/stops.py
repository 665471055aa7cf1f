"""Where each CPU of an x86_64 machine stopped, so that a backtrace has every frame that a local crash shows.

NT_PRSTATUS has the registers of the moment when the kernel saved them, or, of a CPU stopped by an NMI, of what was interrupted:
frames above are lost. A local crash begins at the stack slot with the return address into machine_kexec, panic and the like,
or into crash_nmi_callback on the CPU's NMI stack. So does this, in the order of places and functions that a local crash has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from farcore.errors import FarcoreError, SourceChangedError
from farcore.runs import U64
from farcore_client.doors import memory
from farcore_client.doors.crash.landmarks import Landmarks
from farcore_client.doors.crash.session import Stop
from farcore_client.doors.memory import Memory
from farcore_client.symbols import read
from farcore_client.target import Target

WORD: Final = 8
# THREAD_SIZE of every x86_64 kernel since 3.15 without KASAN, and of its IRQ stacks.
STACK: Final = 16 << 10
# EXCEPTION_STKSZ: a page.
EXCEPTION_STACK: Final = 4 << 10
# struct x86_hw_tss is packed: reserved1 (4 bytes), sp0 to sp2, reserved2, then ist[7] (arch/x86/include/asm/processor.h).
_IST, _ISTS = 36, 7
# struct pcpu_hot (arch/x86/include/asm/current.h): top_of_stack and hardirq_stack_ptr, behind call_depth where that is tracked.
_HOT: Final = (16, 24)
# The kernel's half of the address space.
_KERNEL: Final = 1 << 63

Kind = Literal["task", "irq", "exception"]


@dataclass(slots=True)
class Stops:
    """Called with a CPU's number: where it stopped, None where the dump has no registers of it. Remembers."""

    target: Target
    memory: Memory
    landmarks: Landmarks | None
    _known: dict[int, Stop | None] = field(default_factory=dict)

    def __call__(self, cpu: int) -> Stop | None:
        if not 0 <= cpu < len(self.target.cpus):
            return None
        if cpu not in self._known:
            saved = self._saved(cpu)
            self._known[cpu] = (self._found(cpu, saved) if self.landmarks else None) or saved
        return self._known[cpu]

    def _saved(self, cpu: int) -> Stop | None:
        status = self.target.cpus[cpu]
        if status is None:
            return None
        registers = status.registers
        return Stop(registers.get("rip", 0), registers.get("rsp", 0), registers.get("rbp", 0))

    def _found(self, cpu: int, saved: Stop | None) -> Stop | None:
        """What the stacks show, None where they show nothing."""
        later: dict[str, Stop] = {}
        for kind, base, words in self._stacks(cpu, saved):
            found = at_once(self._marks(base, words), later)
            if found or (found := later.get("panic") or later.get("crash_kexec")):
                return found
            if kind != "exception":
                later.pop("notify_die", None)
        return later.get("sysrq_handle_crash") or later.get("stop_this_cpu") or later.get("notify_die")

    def _marks(self, base: int, words: U64) -> list[tuple[str, Stop]]:
        assert self.landmarks is not None
        found = self.landmarks.on(words, self._offset)
        return [(name, Stop(int(words[place]), base + place * WORD)) for place, name in found]

    @property
    def _offset(self) -> int:
        known = self.target.vmcoreinfo
        return (known and known.kernel_offset) or 0

    def _stacks(self, cpu: int, saved: Stop | None) -> Iterator[tuple[Kind, int, U64]]:
        """The task's stack, that of interrupts, those of exceptions: the lowest address of each, and its words."""
        area = self._area(cpu)
        hot = self._hot(area)
        top = self._pointer(area, "cpu_current_top_of_stack") or hot[0] or (saved and -(-(saved.sp + 1) // STACK) * STACK) or 0
        yield from self._stack("task", top, STACK)
        interrupts = self._pointer(area, "hardirq_stack_ptr") or self._pointer(area, "irq_stack_ptr") or hot[1]
        yield from self._stack("irq", -(-interrupts // 4096) * 4096, STACK)
        for exception in self._exceptions(area):
            yield from self._stack("exception", exception, EXCEPTION_STACK)

    def _stack(self, kind: Kind, top: int, size: int) -> Iterator[tuple[Kind, int, U64]]:
        if top > _KERNEL and (content := self._read(top - size, size)) is not None:
            yield kind, top - size, np.frombuffer(content, "<u8").astype(np.uint64)

    def _area(self, cpu: int) -> int | None:
        """What is added to the address of a per-CPU variable."""
        assert self.landmarks is not None
        offsets = self.landmarks.variables.get("__per_cpu_offset")
        return None if offsets is None else self._word(offsets + self._offset + cpu * WORD)

    def _exceptions(self, area: int | None) -> list[int]:
        """The tops of the stacks that the TSS names."""
        assert self.landmarks is not None
        variables = self.landmarks.variables
        tss = variables.get("cpu_tss_rw", variables.get("cpu_tss"))
        if area is None or tss is None:
            return []
        content = self._read((area + tss + _IST) % (1 << 64), _ISTS * WORD)
        return [] if content is None else np.frombuffer(content, "<u8").tolist()

    def _pointer(self, area: int | None, name: str) -> int | None:
        assert self.landmarks is not None
        variable = self.landmarks.variables.get(name)
        return None if area is None or variable is None else self._word((area + variable) % (1 << 64))

    def _hot(self, area: int | None) -> tuple[int, int]:
        """The tops of the task's and of the interrupts' stacks, of kernels that had them in one place; 0 of others."""
        assert self.landmarks is not None
        hot = self.landmarks.variables.get("pcpu_hot")
        if area is None or hot is None:
            return 0, 0
        for at in _HOT:
            content = self._read((area + hot + at) % (1 << 64), 2 * WORD) or bytes(2 * WORD)
            top, interrupts = np.frombuffer(content, "<u8").tolist()
            # call_depth, which is there otherwise, looks like an address, and nothing is mapped there.
            if top > _KERNEL and self._read(top - WORD, WORD) is not None:
                return top, interrupts
        return 0, 0

    def _word(self, address: int) -> int | None:
        content = self._read(address, WORD)
        return None if content is None else int.from_bytes(content, "little")

    def _read(self, address: int, length: int) -> bytes | None:
        try:
            found = self.memory.read(address, length)
        except SourceChangedError:
            raise
        except FarcoreError:
            return None
        return found if len(found) == length else None


def at_once(marks: list[tuple[str, Stop]], later: dict[str, Stop]) -> Stop | None:
    """The slot that needs no comparison with others; what is to be compared goes to ``later``, the last of its name."""
    for number, (name, stop) in enumerate(marks):
        if name in ("machine_kexec", "crash_nmi_callback"):
            return stop
        if name == "die" and all(other != "sysrq_handle_crash" for other, _ in marks[number:]):
            return stop
        if name == "crash_kexec":
            later.setdefault(name, stop)
        else:
            later[name] = stop
    return None


def of(target: Target, symbols: Path | None) -> Stops:
    """With the landmarks of this vmlinux; without one a backtrace begins where NT_PRSTATUS says."""
    return Stops(target, memory.of(target), None if symbols is None else Landmarks.of(read(symbols)))
