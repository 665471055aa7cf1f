"""Stream: large pieces ahead of a reader in sequence, beside the page cache, where the link is faster than pages are filed.

`cp` of a mounted dump over loopback is no matter of round trips: what counts is how often a byte is touched. A plain range
leaves the server by sendfile and needs neither frames nor pages here. Not locked: its owner does that.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from farcore.batch import Space
from farcore.source import Extent

PIECE: Final = 2 << 20
# Pieces that are kept, 24 MiB beside the cache: three readers at once; and how many are under way ahead of one.
MOST: Final = 12
AHEAD: Final = 3
# Reads of less are a debugger's.
LEAST: Final = 64 << 10

# Seconds that a read waits for its pieces before it goes the other way: with the courier's PATIENCE less than 40.
PATIENCE: Final = 5.0

# Brings an extent of a space; None if that fails, for whatever reason.
Fetch = Callable[[Space, Extent], Future[memoryview | None]]


class Stream:
    """The pieces of a space of ``size`` bytes that were asked for last."""

    def __init__(self, space: Space, size: int, fetch: Fetch) -> None:
        self.space, self.size, self._fetch = space, size, fetch
        self._pieces: dict[int, Future[memoryview | None]] = {}

    def pieces(self, extent: Extent) -> list[tuple[Future[memoryview | None], int, int]]:
        """What an extent is made of: pieces, here or on their way, and [start, stop) of each; begins those behind it."""
        first, last = extent.offset // PIECE, (extent.offset + extent.length - 1) // PIECE
        for number in range(first, min(last + 1 + AHEAD, -(-self.size // PIECE))):
            self._use(number)
        while len(self._pieces) > max(MOST, last + 1 + AHEAD - first):
            del self._pieces[next(iter(self._pieces))]
        found = []
        for number in range(first, last + 1):
            base = number * PIECE
            start, stop = max(extent.offset - base, 0), min(extent.offset + extent.length - base, PIECE)
            found.append((self._pieces[number], start, stop))
        return found

    def _use(self, number: int) -> None:
        """Begin it unless it is there; those that were used last are kept, which may be older than another reader's."""
        offset = number * PIECE
        if number in self._pieces:
            self._pieces[number] = self._pieces.pop(number)
        else:
            self._pieces[number] = self._fetch(self.space, Extent(offset, min(PIECE, self.size - offset)))

    def drop(self, piece: Future[memoryview | None]) -> None:
        """Forget one that failed."""
        self._pieces = {number: other for number, other in self._pieces.items() if other is not piece}


def content(piece: Future[memoryview | None]) -> memoryview | None:
    """What a piece has brought; None if that is nothing, or nothing yet."""
    return piece.result() if piece.done() and not piece.cancelled() else None
