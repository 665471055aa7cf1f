"""PageCache: pages of a dump in one piece of memory of fixed size. A page gets in only whole and checked.

Slots of 4 KiB, given anew by the clock algorithm: pages that were read since the hand came by last are passed over once.
What comes together stays together, so that a long read is few copies. Not locked: its owner does that.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from farcore.batch import SPACES, Space
from farcore.errors import FaultError, FaultKind

SHIFT: Final = 12
PAGE: Final = 1 << SHIFT
# A key is a space and a page: positions have 64 bits.
_SPACE_SHIFT: Final = 64 - SHIFT
# Pages that are remembered without a slot (zeros, holes), for each slot that there is: 100 bytes each.
_BARE_SHARE: Final = 1
# Holes in pages that have bytes as well. Real dumps have a handful; each costs 100 bytes here.
MAX_HOLES: Final = 1 << 14
# Seconds: what a storage failed to read may be there the next time, but not for everyone who asks meanwhile.
RETRY_UNREADABLE: Final = 2.0
LEAST: Final = 4 << 20
# Bytes that a page costs beside itself: an entry of a dict, two integers, a place in a list.
_ENTRY: Final = 176


class Hole(NamedTuple):
    """[start, stop) of a page, and why nothing is there."""

    start: int
    stop: int
    kind: FaultKind


class Bare(NamedTuple):
    """A page of which there are no bytes but zeros, or whose holes are these; ``until``: monotonic, None for ever."""

    holes: tuple[Hole, ...]
    until: float | None


_ZEROS: Final = Bare((), None)
_ZERO_PAGE: Final = memoryview(bytes(PAGE))


def key(space: Space, page: int) -> int:
    """What page number ``page`` of a space is kept under: page n + 1 has the next one."""
    return SPACES.index(space) << _SPACE_SHIFT | page


def place(key: int) -> tuple[Space, int]:
    """The space and page of a key."""
    return SPACES[key >> _SPACE_SHIFT], key & ((1 << _SPACE_SHIFT) - 1)


class PageCache:
    """At most ``capacity`` bytes of pages and of what finds them (LEAST at the least); memory is used as it fills."""

    def __init__(self, capacity: int) -> None:
        self.slots = max(capacity, LEAST) // (PAGE + _ENTRY)
        self._memory = mmap.mmap(-1, self.slots << SHIFT)
        self._keys: list[int | None] = [None] * self.slots
        self._read = bytearray(self.slots)
        self._hand = 0
        self._slot: dict[int, int] = {}
        self._bare: dict[int, Bare] = {}
        self._holes = 0

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    def has(self, key: int) -> bool:
        """Whether a read of this page needs nobody."""
        if key in self._slot:
            return True
        bare = self._bare.get(key)
        if bare is not None and bare.until is not None and bare.until < time.monotonic():
            self._forget(key)
            return False
        return bare is not None

    def put(self, key: int, content: memoryview) -> None:
        """Pages from ``key`` on; only a resource's last one is short."""
        at, end = 0, len(content)
        while at < end:
            slot = self._slot_for(key)
            run = self._run(key, slot, (end - at + PAGE - 1) >> SHIFT)
            length = min(run << SHIFT, end - at)
            start = slot << SHIFT
            self._memory[start : start + length] = content[at : at + length]
            at, key = at + length, key + run

    def put_zeros(self, key: int, pages: int) -> None:
        """Pages of zeros."""
        for one in range(key, key + pages):
            if one not in self._slot:
                self._put_bare(one, _ZEROS)

    def put_holes(self, key: int, holes: tuple[Hole, ...], content: memoryview | None) -> None:
        """A page with holes; ``content`` has all of its bytes, with anything in the holes, None if it is one hole."""
        if content is not None:
            self.put(key, content)
        unreadable = any(hole.kind == "unreadable" for hole in holes)
        self._put_bare(key, Bare(holes, time.monotonic() + RETRY_UNREADABLE if unreadable else None))

    def peek(self, key: int, within: int, length: int) -> bytes | None:
        """Bytes of one page, if they are all here; nothing else is looked at or said."""
        slot = self._slot.get(key)
        if slot is None:
            return bytes(length) if self._bare.get(key) is _ZEROS else None
        if key in self._bare:
            return None
        self._read[slot] = 1
        at = (slot << SHIFT) + within
        return self._memory[at : at + length]

    def read(self, space: Space, offset: int, length: int) -> bytes:
        """Bytes of pages that it ``has``, KeyError otherwise; FaultError at the first hole."""
        first = key(space, offset >> SHIFT)
        within = offset & (PAGE - 1)
        if within + length <= PAGE and (found := self.peek(first, within, length)) is not None:
            return found
        pages = (within + length + PAGE - 1) >> SHIFT
        if self._bare:
            self._demand_whole(space, offset, length)
        pieces = list(self._pieces(first, pages))
        pieces[-1] = pieces[-1][: len(pieces[-1]) - (pages * PAGE - within - length)]
        pieces[0] = pieces[0][within:]
        return b"".join(pieces)

    def _pieces(self, key: int, pages: int) -> Iterator[memoryview]:
        """Where the bytes of these pages are, for the moment: a read may be large, and is copied once."""
        memory, stop = memoryview(self._memory), key + pages
        while key < stop:
            slot = self._slot.get(key)
            if slot is None:
                if key not in self._bare:
                    raise KeyError(key)
                yield _ZERO_PAGE
                key += 1
                continue
            run = 1
            while key + run < stop and self._slot.get(key + run) == slot + run:
                run += 1
            self._read[slot : slot + run] = b"\1" * run
            yield memory[slot << SHIFT : (slot + run) << SHIFT]
            key += run

    def _demand_whole(self, space: Space, offset: int, length: int) -> None:
        """FaultError for the first stretch of one kind that is missing in these bytes."""
        start: int | None = None
        stop, why = 0, ""
        for hole in self._holes_in(space, offset, length):
            if start is None:
                start, stop, why = hole.start, hole.stop, hole.kind
            elif (hole.start, hole.kind) == (stop, why):
                stop = hole.stop
            else:
                break
        if start is not None:
            raise FaultError(address=start, length=stop - start, space=space, kind=_KIND[why])

    def _holes_in(self, space: Space, offset: int, length: int) -> Iterator[Hole]:
        end = offset + length
        for page in range(offset >> SHIFT, (end + PAGE - 1) >> SHIFT):
            bare = self._bare.get(key(space, page))
            for start, stop, kind in bare.holes if bare else ():
                low, high = max((page << SHIFT) + start, offset), min((page << SHIFT) + stop, end)
                if low < high:
                    yield Hole(low, high, kind)

    def _slot_for(self, key: int) -> int:
        """The slot of this page; a page that had it before loses it."""
        slot = self._slot.get(key)
        if slot is not None:
            return slot
        while True:
            slot = self._hand
            self._hand = slot + 1 if slot + 1 < self.slots else 0
            before = self._keys[slot]
            if before is None or not self._read[slot]:
                break
            self._read[slot] = 0
        if before is not None:
            self._forget(before)
        if key in self._bare:
            self._forget(key)
        self._slot[key], self._keys[slot] = slot, key
        return slot

    def _run(self, key: int, slot: int, most: int) -> int:
        """How many pages from ``key`` on, which has ``slot``, get slots behind it."""
        run = 1
        while run < most and slot + run < self.slots and self._slot_for(key + run) == slot + run:
            run += 1
        return run

    def _put_bare(self, key: int, bare: Bare) -> None:
        held = self._bare.get(key)
        if held is not None:
            self._holes -= len(held.holes)
        self._bare[key] = bare
        self._holes += len(bare.holes)
        while len(self._bare) > self.slots * _BARE_SHARE or self._holes > max(MAX_HOLES, self.slots * _BARE_SHARE):
            self._forget(next(iter(self._bare)))

    def _forget(self, key: int) -> None:
        slot = self._slot.pop(key, None)
        if slot is not None:
            self._keys[slot] = None
            self._read[slot] = 0
        bare = self._bare.pop(key, None)
        if bare is not None:
            self._holes -= len(bare.holes)


_KIND: Final[dict[str, FaultKind]] = {"absent": "absent", "excluded": "excluded", "unreadable": "unreadable"}
