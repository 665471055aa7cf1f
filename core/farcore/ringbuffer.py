"""The printk ring buffer of Linux 5.10 and later (kernel/printk/printk_ringbuffer.h), read after its kernel has died.

Descriptors carry an id that counts on without end, and above it two bits of state; one whose id is not the one that belongs
into its place, or that nobody committed, holds no message. Text lies in a data ring whose positions count on as well: a block
that would cross the ring's end starts at its beginning instead, and a position with bit 0 set means that there is no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from farcore.errors import NoLogError
from farcore.logmemory import Array, LogMemory, Record

# The newest are read: as many as log_buf_len=16M has lines of 64 bytes.
MAX_RECORDS: Final = 1 << 18
# The kernel's own limit of log_buf is 2 GiB, of which it makes a descriptor each 32 bytes.
MAX_SIZE_BITS: Final = 31
MAX_COUNT_BITS: Final = MAX_SIZE_BITS - 5

# enum desc_state, in the two uppermost bits of state_var.
_COMMITTED: Final = (1, 2)  # committed, finalized: only the latter is safe while the kernel lives


@dataclass(frozen=True, slots=True)
class _Ring:
    """The arrays, and the offsets of what is read in an element of each."""

    kernel: LogMemory
    count: int
    descs: Array
    desc_size: int
    state_at: int
    begin_at: int
    next_at: int
    infos: Array
    info_size: int
    stamp_at: int
    length_at: int
    text: Array

    @property
    def id_mask(self) -> int:
        return (1 << (8 * self.kernel.word - 2)) - 1

    def record(self, number: int) -> Record | None:
        """The message of the descriptor with this id; None where it has none."""
        index = number & (self.count - 1)
        desc = self.descs.take(index * self.desc_size, self.desc_size)
        info = self.infos.take(index * self.info_size, self.info_size)
        if desc is None or info is None:
            return None
        word, order = self.kernel.word, self.kernel.order
        state = int.from_bytes(desc[self.state_at : self.state_at + word], order)
        if state & self.id_mask != number or state >> (8 * word - 2) not in _COMMITTED:
            return None
        begin = int.from_bytes(desc[self.begin_at : self.begin_at + word], order)
        end = int.from_bytes(desc[self.next_at : self.next_at + word], order)
        stamp = int.from_bytes(info[self.stamp_at : self.stamp_at + 8], order)
        length = int.from_bytes(info[self.length_at : self.length_at + 2], order)
        text = self._block(begin, end, length)
        return None if text is None else Record(stamp, text)

    def _block(self, begin: int, end: int, length: int) -> bytes | None:
        """The text of the block [begin, end), which starts with its descriptor's id."""
        if begin & 1 or end & 1:
            return b""
        size = self.text.size
        begin, end = begin & (size - 1), end & (size - 1)
        if begin == end:
            return b""
        if end == 0:  # it ends where the ring does
            end = size
        if begin > end:
            begin = 0
        begin += self.kernel.word
        found = self.text.take(begin, min(length, max(0, end - begin)))
        return None if found is None else bytes(found)


def records(kernel: LogMemory) -> Iterator[Record]:
    """The messages, oldest first; what was being written when the kernel died is left out. NoLogError for what is no ring."""
    ring, tail, head = _open(kernel)
    held = min((head - tail & ring.id_mask) + 1, ring.count, MAX_RECORDS)
    size = 0
    for back in range(held - 1, -1, -1):
        record = ring.record(head - back & ring.id_mask)
        if record is not None:
            size += len(record.text)
            if size > ring.text.size:
                raise NoLogError("the messages of the printk ring buffer overlap: it is damaged")
            yield record


def _open(kernel: LogMemory) -> tuple[_Ring, int, int]:
    """The ring, and the ids of its oldest and newest descriptors."""
    at = kernel.pointer(kernel.symbol("prb"))
    descs_at = at + kernel.offset("printk_ringbuffer.desc_ring")
    text_at = at + kernel.offset("printk_ringbuffer.text_data_ring")
    count_bits = kernel.number(descs_at + kernel.offset("prb_desc_ring.count_bits"), 4)
    size_bits = kernel.number(text_at + kernel.offset("prb_data_ring.size_bits"), 4)
    if not (0 < count_bits <= MAX_COUNT_BITS and 3 < size_bits <= MAX_SIZE_BITS):
        raise NoLogError(
            f"there is no printk ring buffer at {at:#x}: it would have 2^{count_bits} records in 2^{size_bits} bytes"
        )
    counter = kernel.offset("atomic_long_t.counter")
    count = 1 << count_bits
    desc_size, info_size = kernel.size("prb_desc"), kernel.size("printk_info")
    block = kernel.offset("prb_desc.text_blk_lpos")
    ring = _Ring(
        kernel,
        count,
        kernel.array(kernel.pointer(descs_at + kernel.offset("prb_desc_ring.descs")), count * desc_size),
        desc_size,
        kernel.offset("prb_desc.state_var") + counter,
        block + kernel.offset("prb_data_blk_lpos.begin"),
        block + kernel.offset("prb_data_blk_lpos.next"),
        kernel.array(kernel.pointer(descs_at + kernel.offset("prb_desc_ring.infos")), count * info_size),
        info_size,
        kernel.offset("printk_info.ts_nsec"),
        kernel.offset("printk_info.text_len"),
        kernel.array(kernel.pointer(text_at + kernel.offset("prb_data_ring.data")), 1 << size_bits),
    )
    tail = kernel.pointer(descs_at + kernel.offset("prb_desc_ring.tail_id") + counter)
    head = kernel.pointer(descs_at + kernel.offset("prb_desc_ring.head_id") + counter)
    return ring, tail & ring.id_mask, head & ring.id_mask
