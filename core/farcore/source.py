"""The one interface that carries bytes, and the smallest things that have it.

A Source is read by position and keeps none. Whatever holds or transforms a dump is one, or sits on one and changes one
thing, as nbdkit's filters do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from farcore.errors import FaultError


class Extent(NamedTuple):
    """``length`` bytes from ``offset`` on."""

    offset: int
    length: int


class Source(Protocol):
    """``size`` bytes that can be read at any position, by any number of readers at once."""

    size: int

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at ``offset``, in memory that cannot vanish; FaultError where they are not all there."""
        ...

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """One memoryview an extent, in order; a remote source asks once for all."""
        return [self.pread(offset, length) for offset, length in extents]


def demand(source: Source, offset: int, length: int) -> None:
    """FaultError, naming the bytes that are missing, unless [offset, offset + length) lies inside the source."""
    if offset < 0 or length < 0:
        raise FaultError(address=offset, length=length, space="stored", kind="absent")
    if offset + length > source.size:
        start = max(offset, source.size)
        raise FaultError(address=start, length=offset + length - start, space="stored", kind="absent")


@dataclass(frozen=True, slots=True)
class BytesSource(Source):
    """A Source over bytes in memory."""

    content: bytes | memoryview

    @property
    def size(self) -> int:  # type: ignore[override]
        """Length in bytes."""
        return len(self.content)

    def pread(self, offset: int, length: int) -> memoryview:
        """A slice; the content is immutable, so nothing is copied."""
        demand(self, offset, length)
        return memoryview(self.content).toreadonly()[offset : offset + length]


class Window(Source):
    """The bytes [offset, offset + size) of the source below, from 0 on."""

    def __init__(self, below: Source, offset: int, size: int) -> None:
        demand(below, offset, size)
        self.below, self.offset, self.size = below, offset, size

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at ``offset`` of the window."""
        demand(self, offset, length)
        return self.below.pread(self.offset + offset, length)

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """The batch, passed down as one."""
        wanted = list(extents)
        for offset, length in wanted:
            demand(self, offset, length)
        return self.below.preadv([Extent(self.offset + offset, length) for offset, length in wanted])
