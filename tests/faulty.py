"""Faulty: a source whose storage fails where and when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Literal

from farcore.errors import FaultError, SourceChangedError
from farcore.source import Extent, Source

Fault = Literal["unreadable", "changed"]
NONE: Mapping[int, Fault] = {}


class Faulty(Source):
    """The source below, but for the reads that touch a byte of ``at`` or are the nth of ``calls`` (1 is the first).

    ``asked`` keeps every extent that was read, so that a test can also say what must not be.
    """

    def __init__(self, below: Source, *, at: Mapping[int, Fault] = NONE, calls: Mapping[int, Fault] = NONE) -> None:
        self.below, self.size = below, below.size
        self.at, self.calls = dict(at), dict(calls)
        self.asked: list[Extent] = []
        self._lock = threading.Lock()

    def pread(self, offset: int, length: int) -> memoryview:
        """As below, or the planned error."""
        with self._lock:
            self.asked.append(Extent(offset, length))
            fault, position = self.calls.get(len(self.asked)), offset
        touched = min((byte for byte in self.at if offset <= byte < offset + length), default=None)
        if fault is None and touched is not None:
            fault, position = self.at[touched], touched
        if fault == "unreadable":
            raise FaultError(address=position, length=offset + length - position, space="stored", kind="unreadable")
        if fault == "changed":
            raise SourceChangedError("the file changed, as the test planned")
        return self.below.pread(offset, length)

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        """Each extent counts as a read."""
        return [self.pread(offset, length) for offset, length in extents]
