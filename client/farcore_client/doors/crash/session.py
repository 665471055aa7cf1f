"""What one crash is answered. Nothing here reads memory or waits: a Wanted says what is to be read, and makes the answer of it.

The replies are those of the "paused" form (NIL P), which crash reads with page tables and backtraces of its own. Names that a
client sends are repeated to it and never used; there is no EXECUTE, and nothing can be written.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from farcore_client.doors.crash import answers
from farcore_client.doors.crash.machine import Machine
from farcore_client.doors.crash.requests import Read, Registers, Request, Word

# crash reads a page at a time; the answer's head has seven digits for the length.
MAX_READ: Final = 1 << 20
# The name of the other end; crash keeps nine characters. With one it asks for registers, without it looks for them itself.
_NAME: Final = "farcore"
MEMORY, _VIRTUAL = 5, 6

Space = Literal["physical", "virtual"]


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a CPU's backtrace begins: the instruction, and the stack and base pointers that belong to it."""

    ip: int
    sp: int
    bp: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Memory without which there is no answer: ``length`` bytes from ``address`` on."""

    space: Space
    address: int
    length: int


class Session:
    """One crash's. ``stop`` gives where a CPU stopped, None where that is not known; ``over``: crash has taken its leave."""

    def __init__(self, machine: Machine, size: int, stop: Callable[[int], Stop | None]) -> None:
        self.machine, self.size, self.stop = machine, size, stop
        self.over = False

    def answer(self, request: Request) -> bytes | Wanted:
        """What to send, or what to read first, for `supply`."""
        if isinstance(request, Read):
            return self._read(request)
        if isinstance(request, Registers):
            return self._registers(request)
        return self._said(request)

    def supply(self, content: memoryview | None) -> bytes:
        """The answer with the memory that was wanted; None: it is not there."""
        return answers.no_memory(errno.EIO) if content is None else answers.memory(content)

    def _read(self, read: Read) -> bytes | Wanted:
        if read.descriptor not in (MEMORY, _VIRTUAL):
            return answers.no_memory(errno.EBADF)
        if not 0 < read.length <= MAX_READ:
            return answers.no_memory(errno.EINVAL)
        return Wanted("physical" if read.descriptor == MEMORY else "virtual", read.address, read.length)

    def _registers(self, asked: Registers) -> bytes:
        stop = self.stop(asked.cpu)
        if stop is None:
            return answers.NO
        return answers.said("FETCH_LIVE_IP_SP_BP", asked.cpu, f"10:{stop.ip:x}", f"18:{stop.sp:x}", f"{stop.bp:x}")

    def _said(self, word: Word) -> bytes:
        name, rest = word.name, word.rest
        if name == "NIL":
            return answers.said("NIL P")
        if name == "MACHINE_PID":
            return answers.said(name, self.machine.name, 1)
        if name == "PAGESIZE":
            more = (_NAME, self.machine.cpus) if self.machine.registers else ()
            return answers.said(name, rest, self.machine.page_size, *more)
        if name == "TYPE":
            return answers.said(name, rest, "DEVMEM")
        if name == "OPEN":
            return answers.said(name, rest, _VIRTUAL if rest == "/dev/vmem" else MEMORY, "O_RDONLY", self.size)
        if name == "CLOSE":
            return answers.said(name, rest, "OK")
        self.over = name == "EXIT"
        return answers.said("EXIT OK") if self.over else answers.NO
