"""Batch: what a POST to /pages asks for: ranges of a dump's spaces, thousands of them in one body.

A header of 16 bytes, then 16 bytes an item, all little-endian (docs/pages.md). The answer (farcore.frames) is about one
string of bytes: the items' bytes, one item after the other.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import numpy as np

from farcore.arrays import Array
from farcore.errors import FrameError
from farcore.frames import LEVELS, VERSION, Found, Piece
from farcore.runs import U64

Space = Literal["physical", "vmcore", "stored"]
# An item's space is its place in here.
SPACES: Final[tuple[Space, ...]] = ("physical", "vmcore", "stored")

# A cold start of crash on a 2 GiB guest reads 9,821 pages; and 1 MiB is the most that a server takes in unread.
MAX_ITEMS: Final = 1 << 16
# More is asked for in several batches: a dump is not pulled in one request that cannot be resumed.
MAX_TOTAL: Final = 1 << 30

_MAGIC: Final = b"FCPQ"
_HEADER: Final = struct.Struct("<4sBBbxIxxxx")
_ZSTD, _REPEATS = 1, 2
ITEM: Final = np.dtype([("start", "<u8"), ("length", "<u4"), ("space", "u1"), ("rest", "u1", (3,))])
MAX_BODY: Final = _HEADER.size + MAX_ITEMS * ITEM.itemsize


class Item(NamedTuple):
    """``length`` bytes (1 to 2^32 - 1) from position ``start`` of ``space`` on."""

    space: Space
    start: int
    length: int


class Part(NamedTuple):
    """``length`` bytes from ``offset`` on of item number ``item``; ``content`` has them if ``kind`` is DATA, else nothing."""

    item: int
    offset: int
    length: int
    kind: Found
    content: memoryview


@dataclass(frozen=True, eq=False)
class Batch:
    """Items, as arrays of one entry each; ``level`` is the zstd level wanted, None where no zstd can be read.

    ``repeats``: pages that stand in the answer already may be named.
    """

    start: U64
    length: U64
    space: Array[np.uint8]
    level: int | None = None
    repeats: bool = False

    def __post_init__(self) -> None:
        if self.level is not None and self.level not in LEVELS:
            raise FrameError(f"zstd level {self.level} cannot be asked for; {LEVELS[0]} to {LEVELS[-1]} can")
        for wrong, what in (
            (self.length == 0, "has no length; leave it out"),
            (self.start + self.length < self.start, "reaches position 2^64 - 1, where no dump has bytes"),
            (self.space >= len(SPACES), "is of a space that is none of 0 (physical), 1 (vmcore), 2 (stored)"),
        ):
            if wrong.any():
                raise FrameError(f"item {int(wrong.argmax())} {what}")

    @classmethod
    def of(cls, items: Iterable[Item | tuple[Space, int, int]], level: int | None = None, *, repeats: bool = False) -> Batch:
        """These items, in this order; FrameError for one that cannot be asked for."""
        wanted = list(items)
        for number, (_, start, length) in enumerate(wanted):
            if not (0 <= start < 1 << 64 and 0 <= length < 1 << 32):
                raise FrameError(f"item {number} starts outside 0 to 2^64 - 1, or is longer than 2^32 - 1 bytes; ask for parts")
        spaces, starts, lengths = zip(*wanted, strict=True) if wanted else ((), (), ())
        space = np.array([SPACES.index(each) for each in spaces], np.uint8)
        return cls(np.array(starts, np.uint64), np.array(lengths, np.uint64), space, level, repeats)

    @classmethod
    def parse(cls, body: bytes | bytearray) -> Batch:
        """The batch that is all of ``body``; FrameError with what is wrong in it."""
        if len(body) < _HEADER.size or body[:4] != _MAGIC:
            raise FrameError(f"a batch starts with {_MAGIC.decode()} and a header of {_HEADER.size} bytes; this one does not")
        _, version, codecs, level, count = _HEADER.unpack_from(body)
        if version != VERSION:
            raise FrameError(f"this is version {version} of the format, and only version {VERSION} is understood")
        if len(body) != _HEADER.size + count * ITEM.itemsize:
            raise FrameError(f"{count:,} items take {_HEADER.size + count * ITEM.itemsize:,} bytes; there are {len(body):,}")
        items = np.frombuffer(body, ITEM, offset=_HEADER.size)
        if body[7] or any(body[12:16]) or items["rest"].any():
            raise FrameError("the bytes that this version leaves free are not zero")
        columns = items["start"].astype(np.uint64), items["length"].astype(np.uint64), items["space"].copy()
        return cls(*columns, level if codecs & _ZSTD else None, bool(codecs & _REPEATS))

    def pack(self) -> bytes:
        """The body of the request."""
        items = np.zeros(len(self), ITEM)
        items["start"], items["length"], items["space"] = self.start, self.length, self.space
        codecs = (0 if self.level is None else _ZSTD) | (_REPEATS if self.repeats else 0)
        header = _HEADER.pack(_MAGIC, VERSION, codecs, self.level or 0, len(self))
        return header + items.tobytes()

    def __len__(self) -> int:
        return len(self.start)

    @property
    def total(self) -> int:
        """Bytes of all items together."""
        return int(self.length.sum(dtype=np.uint64))

    def split(self, pieces: Iterable[Piece]) -> Iterator[Part]:
        """Pieces of this batch's answer (without repeats), cut where items end: each part is of one item, in order."""
        ends = self._ends
        for at, rest, kind, content, _ in pieces:
            item = bisect_right(ends, at)
            while rest:
                length = min(rest, ends[item] - at)
                yield Part(item, at - (ends[item - 1] if item else 0), length, kind, content[:length])
                content, rest, at, item = content[length:], rest - length, at + length, item + 1

    @cached_property
    def _ends(self) -> list[int]:
        """Where each item ends in the answer."""
        ends: list[int] = np.cumsum(self.length, dtype=np.uint64).tolist()
        return ends
