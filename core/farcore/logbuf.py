"""The kernel log before the ring buffer: log_buf with records (3.5 to 5.9, kernel/printk/printk.c), and as plain text.

A record is a struct printk_log (struct log up to 3.10) with its text right behind; one of length 0 sends the reader back to
the start. Before 3.5 log_buf is text alone, log_end counts all characters ever written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from farcore.errors import NoLogError
from farcore.logmemory import Array, LogMemory, Record
from farcore.vmcoreinfo import Vmcoreinfo

# Twice what a kernel of that time was ever given (log_buf_len=16M): two million records at most, some seconds' work.
MAX_SIZE: Final = 32 << 20
# Of plain text so much is read, the newest: what the kernels of that time had at most was 16 MiB.
MAX_PLAIN: Final = 16 << 20

_LEVEL: Final = re.compile(rb"<[0-9]{1,3}>")


def has_records(known: Vmcoreinfo) -> bool:
    """Whether log_buf has records, by the names there are for their members."""
    return _struct(known) is not None


def _struct(known: Vmcoreinfo) -> str | None:
    return next((name for name in ("printk_log", "log") if known.member_offset(f"{name}.ts_nsec") is not None), None)


def records(kernel: LogMemory) -> Iterator[Record]:
    """The messages, oldest first; a record that cannot be followed ends the log."""
    name = _struct(kernel.known)
    size = kernel.size(name or "printk_log")
    stamp_at, length_at, text_length_at = (kernel.offset(f"{name}.{member}") for member in ("ts_nsec", "len", "text_len"))
    buffer = _buffer(kernel)
    at, stop = (kernel.number(kernel.symbol(symbol), 4) for symbol in ("log_first_idx", "log_next_idx"))
    if max(at, stop) > buffer.size:
        raise NoLogError(f"log_buf has {buffer.size:,} bytes and no byte {max(at, stop):,}, at which a record should be")
    wrapped = False
    while at != stop:
        header = buffer.take(at, size)
        length = 0 if header is None else int.from_bytes(header[length_at : length_at + 2], kernel.order)
        if length == 0 and not wrapped:
            wrapped, at = True, 0
            continue
        # A record that goes on behind the newest has come round: only damage does that.
        if header is None or length < size or (wrapped and at > stop):
            return
        text_length = int.from_bytes(header[text_length_at : text_length_at + 2], kernel.order)
        text = buffer.take(at + size, min(text_length, length - size))
        if text is not None:
            yield Record(int.from_bytes(header[stamp_at : stamp_at + 8], kernel.order), bytes(text))
        at += length


def plain(kernel: LogMemory) -> Iterator[Record]:
    """The lines of a log that is plain text, without their levels (`<6>`)."""
    buffer = _buffer(kernel)
    end = kernel.number(kernel.symbol("log_end"), 4)
    if buffer.size & (buffer.size - 1):
        raise NoLogError(f"log_buf should have {buffer.size:,} bytes, which is no power of two")
    start = max(0, end - min(buffer.size, MAX_PLAIN))
    begin, stop = start & (buffer.size - 1), end & (buffer.size - 1)
    pieces = [(begin, stop)] if begin < stop or start == end else [(begin, buffer.size), (0, stop)]
    text = b"".join(bytes(found) for low, high in pieces if (found := buffer.take(low, high - low)) is not None)
    for line in text.strip(b"\0").removesuffix(b"\n").split(b"\n"):
        yield Record(None, _LEVEL.sub(b"", line, count=1) if _LEVEL.match(line) else line)


def _buffer(kernel: LogMemory) -> Array:
    size = kernel.number(kernel.symbol("log_buf_len"), 4)
    if not 0 < size <= MAX_SIZE:
        raise NoLogError(f"log_buf should have {size:,} bytes; up to {MAX_SIZE:,} are read")
    return kernel.array(kernel.pointer(kernel.symbol("log_buf")), size)
