"""Which CPU panicked: the kernel has written it down, in a word that only symbols lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from farcore.errors import FarcoreError
from farcore.file import FileSource
from farcore_client.doors.gdb.description import ORDER
from farcore_client.doors.memory import Memory
from farcore_client.symbols import Symbols
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


def cpu(vmlinux: Path, target: Target, memory: Memory) -> int | None:
    """The same by the symbols of ``vmlinux``; None where it has none."""
    moved = (target.vmcoreinfo.kernel_offset if target.vmcoreinfo else None) or 0
    fd = os.open(vmlinux, os.O_RDONLY | os.O_CLOEXEC)
    source = FileSource(fd, os.fstat(fd).st_size)
    try:
        addresses = Symbols.read(source).addresses(SYMBOLS)
    except FarcoreError:
        return None
    finally:
        source.close()
    found = (cpu_at(addresses[name] + moved, target, memory) for name in SYMBOLS if name in addresses)
    return next((each for each in found if each is not None), None)
