"""RemoteSource: one space of a dump that lies on another machine, read as any Source is."""

from __future__ import annotations

from collections.abc import Iterable

from farcore.batch import Space
from farcore.layout import absent
from farcore.source import Extent, Source
from farcore_client.remote.cache import PAGE, SHIFT, key
from farcore_client.remote.pages import Pages


class RemoteSource(Source):
    """``size`` bytes; a read waits for what is not in the cache, FaultError where the dump has nothing.

    UnreachableError when the server could not be reached for half a minute, SourceChangedError for ever once the dump is
    another. Any thread may read.
    """

    def __init__(self, pages: Pages, space: Space) -> None:
        self.space, self.size, self._pages = space, pages.sizes[space], pages
        self._first = key(space, 0)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at ``offset``, with the block around them where they miss."""
        if length > 0 and offset >= 0 and offset + length <= self.size:
            found = self._pages.at_hand(self._first + (offset >> SHIFT), offset & (PAGE - 1), length)
            if found is not None:
                return memoryview(found)
        return self.preadv([Extent(offset, length)])[0]

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """A batch; all that is missing in one round trip."""
        inside: list[Extent] = []
        for offset, length in extents:
            if offset < 0 or length < 0 or offset > self.size:
                self._pages.read(self.space, inside)
                raise absent(offset, length, self.space)
            inside.append(Extent(offset, min(length, self.size - offset)))
            if offset + length > self.size:
                # A hole in front of the end is the first that is missing.
                self._pages.read(self.space, inside)
                raise absent(self.size, offset + length - self.size, self.space)
        return self._pages.read(self.space, inside)
