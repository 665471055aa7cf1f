"""LogMemory: a dead kernel's variables and arrays by the names that VMCOREINFO has for them."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from farcore.elf import Data
from farcore.errors import FaultError, NoLogError
from farcore.source import Source
from farcore.vmcoreinfo import Vmcoreinfo

# Read ahead in an array: a few hundred records, and one round trip for a remote source.
_PIECE: Final = 64 << 10
# Bounds on arrays whose contents lead to and fro, or nowhere. A sound one is read once, in order; a log_buf of 64 MiB is huge.
MAX_READ: Final = 256 << 20
MAX_MISSES: Final = 1000


class Record(NamedTuple):
    """A message: when (nanoseconds since boot; None: its text says so itself), and its bytes without a line end."""

    nanoseconds: int | None
    text: bytes


class LogMemory:
    """Virtual ``memory`` of a kernel whose longs have ``word`` bytes."""

    def __init__(self, memory: Source, known: Vmcoreinfo, word: int, data: Data) -> None:
        self.memory, self.known, self.word = memory, known, word
        self.order: Literal["little", "big"] = "little" if data == "LE" else "big"

    def number(self, address: int, length: int) -> int:
        """The unsigned number of ``length`` bytes at a vaddr."""
        return int.from_bytes(self.memory.pread(address, length), self.order)

    def pointer(self, address: int) -> int:
        """The long or pointer at a vaddr."""
        return self.number(address, self.word)

    def symbol(self, name: str) -> int:
        """Its vaddr; NoLogError where VMCOREINFO lacks it."""
        return self._demand(self.known.symbol(name), f"SYMBOL({name})")

    def offset(self, name: str) -> int:
        """OFFSET(name), bytes into a struct of less than a page."""
        found = self._demand(self.known.member_offset(name), f"OFFSET({name})")
        if not 0 <= found < 4096:
            raise NoLogError(f"VMCOREINFO's OFFSET({name}) is {found:,}, which no struct of the log has")
        return found

    def size(self, name: str) -> int:
        """SIZE(name), bytes of a struct, at most a page."""
        found = self._demand(self.known.type_size(name), f"SIZE({name})")
        if not 0 < found <= 4096:
            raise NoLogError(f"VMCOREINFO's SIZE({name}) is {found:,}, which no struct of the log has")
        return found

    def array(self, address: int, size: int) -> Array:
        """``size`` bytes at a vaddr, read piece by piece as they are asked for."""
        if address + size > self.memory.size:
            raise NoLogError(f"the kernel log's {size:,} bytes at {address:#x} end beyond all addresses")
        return Array(self, address, size)

    @staticmethod
    def _demand(found: int | None, what: str) -> int:
        if found is None:
            raise NoLogError(f"VMCOREINFO lacks {what}, without which the kernel log cannot be read")
        return found


class Array:
    """Bytes of a large array, mostly asked for in ascending order: read ahead, and kept one piece at a time."""

    def __init__(self, kernel: LogMemory, address: int, size: int) -> None:
        self.kernel, self.address, self.size = kernel, address, size
        self._start, self._piece = 0, memoryview(b"")
        self._left = min(4 * size + (1 << 20), MAX_READ)
        self._misses = 0

    def take(self, offset: int, length: int) -> memoryview | None:
        """``length`` bytes at ``offset``; None where they are not all in the array and the dump, or past its bounds."""
        if offset < 0 or length < 0 or offset + length > self.size:
            return None
        at = offset - self._start
        if at < 0 or at + length > len(self._piece):
            if self._left < 0 or self._misses > MAX_MISSES:
                return None
            at = 0
            try:
                self._fetch(offset, min(max(length, _PIECE), self.size - offset))
            except FaultError:
                # What follows may never have been written to, and be left out of the dump.
                try:
                    self._fetch(offset, length)
                except FaultError:
                    self._misses += 1
                    return None
        return self._piece[at : at + length]

    def _fetch(self, offset: int, length: int) -> None:
        self._left -= length
        self._piece, self._start = self.kernel.memory.pread(self.address + offset, length), offset
