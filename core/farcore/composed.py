"""Composed: what the layouts of a kdump-compressed dump are over: its dumped pages, and the headers of the core around them."""

from __future__ import annotations

from collections.abc import Callable

from farcore.kdump import Kdump
from farcore.pagemap import MAX_ADDRESS
from farcore.source import Source

# Where the headers begin; there are never so many dumped pages.
HEADERS = MAX_ADDRESS


class Composed(Source):
    """``pages`` by position, and from HEADERS on ``headers``."""

    def __init__(self, pages: Kdump, headers: Source) -> None:
        self.pages, self.headers, self.size = pages, headers, HEADERS + headers.size

    def through(self, below: Callable[[Source], Source]) -> Composed:
        """The same, the dump's files read through what ``below`` makes of them."""
        return Composed(self.pages.through(below), self.headers)

    def pread(self, offset: int, length: int) -> memoryview:
        """As the one or the other."""
        return self.pages.pread(offset, length) if offset < HEADERS else self.headers.pread(offset - HEADERS, length)
