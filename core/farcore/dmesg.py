"""dmesg: the kernel log out of a dead kernel's memory, through VMCOREINFO alone, as text that is safe on a terminal.

Three formats, each read by a file of its own: the printk ring buffer (5.10 and later), records in log_buf (3.5 to 5.9), and
plain text in log_buf before. Whatever the memory holds, at most MAX_RECORDS are read and MAX_TEXT bytes of text kept: the
newest. A record is shown as makedumpfile --dump-dmesg does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from farcore import logbuf, registers, ringbuffer
from farcore.elf import Data, Elf
from farcore.errors import FaultError, NoLogError
from farcore.kernelspace import KernelSpace
from farcore.logmemory import LogMemory, Record
from farcore.source import Source
from farcore.vmcoreinfo import Vmcoreinfo

# log_buf_len=16M, with lines of 64 bytes.
MAX_RECORDS: Final = ringbuffer.MAX_RECORDS
# Bytes of all messages: what such a buffer has. Escaped it is four times as much at most.
MAX_TEXT: Final = 16 << 20

Kind = Literal["ring", "records", "text"]


@dataclass(frozen=True, slots=True)
class Log:
    """The messages, oldest first; ``left_out``: how many older ones were not kept."""

    kind: Kind
    records: tuple[Record, ...]
    left_out: int = 0

    def lines(self) -> Iterator[str]:
        """One line of text a line of a message, without line ends."""
        for record in self.records:
            yield from lines(record)

    def text(self) -> str:
        """All of it, ASCII."""
        return "".join(f"{line}\n" for line in self.lines())


def of(physical: Source, elf: Elf, known: Vmcoreinfo | None) -> Log:
    """The log of a dump by its ``physical`` memory (position = paddr); NoLogError without one."""
    if known is None:
        raise NoLogError("the dump has no VMCOREINFO, which says where the kernel log is")
    header = elf.header
    machine = registers.layout(header.machine, header.bits)  # QEMU writes ELF64 for i386
    word = (machine.bits if machine else header.bits) // 8
    return read(KernelSpace(physical, header, known, elf), known, word=word, data=header.data)


def read(memory: Source, known: Vmcoreinfo, *, word: int, data: Data) -> Log:
    """The log in virtual ``memory`` (position = vaddr) of a kernel whose longs have ``word`` bytes; NoLogError without one."""
    kernel = LogMemory(memory, known, word, data)
    try:
        if known.symbol("prb") is not None:
            return newest("ring", ringbuffer.records(kernel))
        if known.symbol("log_buf") is not None:
            kind: Kind = "records" if logbuf.has_records(known) else "text"
            return newest(kind, logbuf.records(kernel) if kind == "records" else logbuf.plain(kernel))
    except FaultError as error:
        raise NoLogError(f"the kernel log cannot be read: {error}") from error
    raise NoLogError("VMCOREINFO names no kernel log (neither prb nor log_buf)")


def newest(kind: Kind, found: Iterable[Record]) -> Log:
    """The log of these records, of which the newest within the limits are kept."""
    kept: deque[Record] = deque()
    size = left_out = 0
    for record in found:
        kept.append(record)
        size += len(record.text)
        while size > MAX_TEXT or len(kept) > MAX_RECORDS:
            size -= len(kept.popleft().text)
            left_out += 1
    return Log(kind, tuple(kept), left_out)


def lines(record: Record) -> Iterator[str]:
    r"""A record as text: `[    1.234567] message`, further lines indented; other than printable ASCII and tabs as \x1b."""
    stamp = "" if record.nanoseconds is None else _stamp(record.nanoseconds)
    first, *more = record.text.split(b"\n")
    yield stamp + safe(first)
    for line in more:
        yield " " * len(stamp) + safe(line)


def _stamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"[{seconds:5d}.{rest // 1000:06d}] "


_SAFE: Final = {byte: chr(byte) if 0x20 <= byte < 0x7F or byte == 0x09 else f"\\x{byte:02x}" for byte in range(256)}


def safe(raw: bytes) -> str:
    """Bytes of a message as text that no terminal obeys."""
    return raw.decode("latin-1").translate(_SAFE)
