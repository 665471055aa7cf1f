"""Which CPU panicked: the kernel has written it down, in a word that only symbols lead to."""

from __future__ import annotations

from typing import Final

from farcore.errors import FarcoreError
from farcore_client.doors.gdb.description import ORDER
from farcore_client.doors.gdb.memory import Memory
from farcore_client.target import Target

# kernel/panic.c (4.4 and later); arch/x86/kernel/reboot.c for what did not come through it. An int that is -1 without a crash.
SYMBOLS: Final = ("panic_cpu", "crashing_cpu")


def cpu_at(address: int, target: Target, memory: Memory) -> int | None:
    """The number of the CPU that the word at ``address`` names; None where it names none of the dump's."""
    try:
        word = memory.read(address, 4)
    except FarcoreError:
        return None
    cpu = int.from_bytes(word, ORDER[target.elf.header.data], signed=True)
    return cpu if len(word) == 4 and 0 <= cpu < len(target.cpus) else None
