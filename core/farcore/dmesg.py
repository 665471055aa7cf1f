"""dmesg: the kernel log out of a dead kernel's memory, through VMCOREINFO alone, as text that is safe on a terminal.

Three formats, each read by a file of its own: the printk ring buffer (5.10 and later), records in log_buf (3.5 to 5.9), and
plain text in log_buf before. Whatever the memory holds, at most MAX_RECORDS are read and MAX_TEXT bytes of text kept: the
newest. A record is shown as makedumpfile --dump-dmesg does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from farcore import logbuf, registers, ringbuffer, vmcoreinfo, xen
from farcore.elf import Data, Elf
from farcore.errors import FaultError, NoLogError
from farcore.kernelspace import KernelSpace
from farcore.logmemory import LogMemory, Record
from farcore.notes import Note
from farcore.pagetable import X86_64, PageTables
from farcore.source import Source
from farcore.vmcoreinfo import Vmcoreinfo
from farcore.xen import Xen

# log_buf_len=16M, with lines of 64 bytes.
MAX_RECORDS: Final = ringbuffer.MAX_RECORDS
# Bytes of all messages: what such a buffer has. Escaped it is four times as much at most.
MAX_TEXT: Final = 16 << 20

# CPUs of a Xen machine whose address spaces are tried: dom0 has at least one of them when it crashed.
MAX_CR3: Final = 64

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


def of(physical: Source, elf: Elf, notes: Sequence[Note]) -> Log:
    """The log of a dump by its ``physical`` memory (position = paddr) and its notes; NoLogError without one."""
    known = vmcoreinfo.of_linux(notes)
    if known is None:
        raise NoLogError("the dump has no VMCOREINFO, which says where the kernel log is")
    header = elf.header
    if (hypervisor := xen.of(notes, header.data)) is not None:
        return _of_dom0(physical, elf, known, hypervisor)
    return read(KernelSpace(physical, header, known, elf), known, word=_word(elf, known), data=header.data)


def _of_dom0(physical: Source, elf: Elf, known: Vmcoreinfo, hypervisor: Xen) -> Log:
    """dom0's log by the page tables that a CPU used: what dom0 takes for physical addresses are none of the machine's."""
    for top in list(dict.fromkeys(reversed(hypervisor.cr3)))[:MAX_CR3]:
        tables = PageTables(physical, top & X86_64.address, X86_64)
        with suppress(NoLogError):
            space = KernelSpace(physical, elf.header, known, tables=tables)
            return read(space, known, word=_word(elf, known), data=elf.header.data)
    raise NoLogError("dom0's log is in none of the address spaces that the CPUs of this Xen machine were in")


def _word(elf: Elf, known: Vmcoreinfo) -> int:
    """Bytes of the kernel's long, by its own word, for e_machine may be another's; QEMU writes ELF64 for i386."""
    told = known.type_size("atomic_long_t")
    if told in (4, 8):
        return told
    machine = registers.layout(elf.header.machine, elf.header.bits)
    return (machine.bits if machine else elf.header.bits) // 8


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
