"""Kernel logs written with struct alone, as the three generations of printk leave them in memory; knows nothing of farcore.

A Memory is one stretch of kernel memory with the VMCOREINFO lines that describe it; ``dump`` makes a vmcore of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.elfwriter import Dump, load, note

BASE = {4: 0xC1000000, 8: 0xFFFF888001000000}
PADDR = 0x1000000
COMMITTED, FINALIZED, REUSABLE = 1, 2, 3
NO_TEXT = 3  # NO_LPOS


class Line(NamedTuple):
    """A message, when it was written, and the state of its descriptor (0: being written)."""

    nanoseconds: int
    text: bytes
    state: int = FINALIZED


@dataclass
class Memory:
    """Bytes from ``base`` on, filled piece by piece."""

    word: int = 8
    order: str = "<"
    content: bytearray = field(default_factory=bytearray)
    lines: list[str] = field(default_factory=list)

    @property
    def base(self) -> int:
        return BASE[self.word]

    def pack(self, layout: str, *values: int) -> bytes:
        """``L`` is a long of the kernel."""
        return struct.pack(self.order + layout.replace("L", "Q" if self.word == 8 else "I"), *values)

    def put(self, piece: bytes, symbol: str | None = None) -> int:
        """The piece at the next multiple of 16; its vaddr."""
        self.content += bytes(-len(self.content) % 16)
        at = self.base + len(self.content)
        self.content += piece
        if symbol:
            self.lines.append(f"SYMBOL({symbol})={at:x}")
        return at

    def say(self, what: str, **values: int) -> None:
        """OFFSET, SIZE or LENGTH of several names; ``__`` stands for the dot."""
        self.lines += [f"{what}({name.replace('__', '.')})={value}" for name, value in values.items()]

    def vmcoreinfo(self, *more: str) -> bytes:
        """The note's text."""
        return "\n".join(["OSRELEASE=6.1.0", "PAGESIZE=4096", *self.lines, *more, ""]).encode()

    def dump(self, machine: int | None = None, *more: str) -> Dump:
        """A vmcore as /proc/vmcore is: PT_LOADs say the virtual addresses."""
        machine = machine or {4: 3, 8: 62}[self.word]
        content = bytes(self.content) + bytes(-len(self.content) % 4096)
        notes = note(("CORE", 1, bytes(144 if self.word == 4 else 336)), ("VMCOREINFO", 0, self.vmcoreinfo(*more)))
        memory = load(content, paddr=PADDR, vaddr=self.base)
        return Dump([notes, memory], bits=self.word * 8, data="LE" if self.order == "<" else "BE", machine=machine)


def ring(
    lines: Sequence[Line],
    *,
    word: int = 8,
    order: str = "<",
    count_bits: int = 4,
    size_bits: int = 9,
    first_id: int = 0,
    first_lpos: int = 0,
) -> Memory:
    """A printk ring buffer after these messages; those that no longer fit have been overwritten, as prb_reserve does."""
    memory = Memory(word, order)
    count, size, mask = 1 << count_bits, 1 << size_bits, (1 << (8 * word - 2)) - 1
    descs: list[tuple[int, int, int]] = [(REUSABLE << (8 * word - 2), 1, 1)] * count
    infos, data = [(0, 0, 0)] * count, bytearray(size)
    lpos = first_lpos
    for number, (stamp, text, state) in enumerate(lines, first_id):
        number &= mask
        begin, lpos = _block(lpos, size, word, len(text)) if text else (NO_TEXT, lpos)
        if text:
            at = 0 if begin // size != (lpos - 1) // size else begin % size
            block = memory.pack("L", number) + text
            data[at : at + len(block)] = block
        descs[number % count] = (state << (8 * word - 2) | number, begin, lpos if text else NO_TEXT)
        infos[number % count] = (number, stamp, len(text))
    # What lies further back than the ring is long has been overwritten, and its descriptor given back.
    for index, (state, begin, end) in enumerate(descs):
        if not begin & 1 and begin < lpos - size:
            descs[index] = (REUSABLE << (8 * word - 2) | state & mask, begin, end)
    data_at = memory.put(bytes(data))
    descs_at = memory.put(b"".join(memory.pack("LLL", *desc) for desc in descs))
    infos_at = memory.put(b"".join(memory.pack("QQH2xI", *info, 0).ljust(88, b"\0") for info in infos))
    head, tail = first_id + len(lines) - 1, first_id + max(0, len(lines) - count)
    after = {4: "I", 8: "I4x"}[word]
    rings = memory.pack(f"{after}LLLLL", count_bits, descs_at, infos_at, head & mask, tail & mask, 0)
    rings += memory.pack(f"{after}LLL", size_bits, data_at, lpos & (1 << 8 * word) - 1, 0) + memory.pack("L", 0)
    memory.put(memory.pack("L", memory.put(rings)), "prb")
    memory.say("OFFSET", printk_ringbuffer__desc_ring=0, printk_ringbuffer__text_data_ring=6 * word)
    memory.say("OFFSET", prb_desc_ring__count_bits=0, prb_desc_ring__descs=word, prb_desc_ring__infos=2 * word)
    memory.say("OFFSET", prb_desc_ring__head_id=3 * word, prb_desc_ring__tail_id=4 * word, atomic_long_t__counter=0)
    memory.say("OFFSET", prb_desc__state_var=0, prb_desc__text_blk_lpos=word)
    memory.say("OFFSET", prb_data_blk_lpos__begin=0, prb_data_blk_lpos__next=word)
    memory.say("OFFSET", printk_info__seq=0, printk_info__ts_nsec=8, printk_info__text_len=16, printk_info__caller_id=20)
    memory.say("OFFSET", prb_data_ring__size_bits=0, prb_data_ring__data=word, prb_data_ring__head_lpos=2 * word)
    memory.say("SIZE", printk_ringbuffer=11 * word, prb_desc_ring=6 * word, prb_desc=3 * word, printk_info=88)
    memory.say("SIZE", prb_data_ring=4 * word, prb_data_blk_lpos=2 * word, atomic_long_t=word)
    return memory


def _block(lpos: int, size: int, word: int, length: int) -> tuple[int, int]:
    """Begin and next of a block with its id; one that would reach the end begins anew (get_next_lpos, 5.10 to 6.17)."""
    whole = -(-(word + length) // word) * word
    if lpos // size == (lpos + whole) // size:
        return lpos, lpos + whole
    return lpos, (lpos + whole) // size * size + whole


def records(lines: Sequence[Line], *, word: int = 8, order: str = "<", size: int = 512, name: str = "printk_log") -> Memory:
    """log_buf of 3.5 to 5.9 after these messages (log_make_free_space, log_store)."""
    memory = Memory(word, order)
    buffer, at = bytearray(size), 0
    held: list[tuple[int, int]] = []
    for stamp, text, _ in lines:
        length = -(-(16 + len(text)) // 4) * 4
        if at + length + 16 >= size:
            buffer[at : at + 16] = bytes(16)
            held = [(start, stop) for start, stop in held if start < at]
            at = 0
        held = [(start, stop) for start, stop in held if stop <= at or start >= at + length + 16]
        held.append((at, at + length))
        buffer[at : at + length] = (memory.pack("QHHHBB", stamp, length, len(text), 0, 0, 0xC6) + text).ljust(length, b"\0")
        at += length
    memory.put(memory.pack("L", memory.put(bytes(buffer))), "log_buf")
    memory.put(memory.pack("I", size), "log_buf_len")
    memory.put(memory.pack("I", held[0][0] if held else 0), "log_first_idx")
    memory.put(memory.pack("I", at), "log_next_idx")
    memory.lines += [f"SIZE({name})=16"]
    memory.lines += [f"OFFSET({name}.{member})={at}" for member, at in (("ts_nsec", 0), ("len", 8), ("text_len", 10))]
    return memory


def plain(text: bytes, *, word: int = 8, order: str = "<", size: int = 256) -> Memory:
    """log_buf before 3.5 after so much text."""
    memory = Memory(word, order)
    buffer = bytearray(size)
    for at, byte in enumerate(text):
        buffer[at % size] = byte
    memory.put(memory.pack("L", memory.put(bytes(buffer))), "log_buf")
    memory.put(memory.pack("I", size), "log_buf_len")
    memory.put(memory.pack("I", len(text)), "log_end")
    memory.put(memory.pack("I", min(len(text), size)), "logged_chars")
    return memory
