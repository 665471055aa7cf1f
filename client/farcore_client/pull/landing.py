"""Landing: where what comes for one work goes: into the part file, holes where there is nothing to write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np

from farcore.errors import FaultError, Space
from farcore.frames import Found, Piece
from farcore.source import Extent
from farcore_client.pull.chunks import PAGE, Work
from farcore_client.pull.partfile import PartFile

# By name each would be looked up in the class of an enumeration, which is slow.
_DATA, _ZERO, _SAME, _UNREADABLE = Found.DATA, Found.ZERO, Found.SAME, Found.UNREADABLE


@dataclass(slots=True)
class Tally:
    """Bytes of the resource that came, by how; ``wire``: bytes received for them."""

    data: int = 0
    zero: int = 0
    repeated: int = 0
    nothing: int = 0
    wire: int = 0

    @property
    def total(self) -> int:
        """Bytes of the resource."""
        return self.data + self.zero + self.repeated + self.nothing

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Landing:
    """Takes the bytes of ``work`` in the order of its string, in one thread at a time; ``at`` is how far it has come.

    ``base`` is where in the string the answer that comes now begins.
    """

    def __init__(self, part: PartFile, work: Work, space: Space) -> None:
        self.work, self.at, self.base, self.tally = work, 0, 0, Tally()
        self._part, self._space = part, space

    @property
    def complete(self) -> bool:
        """Whether all has come."""
        return self.at == self.work.length

    def rest(self) -> list[Extent]:
        """What to ask for now; what comes next is taken for the answer to it."""
        # A page that has come in part comes again, so that pages stay where pages are looked for.
        self.at = self.base = self.at // PAGE * PAGE
        return self.work.items(self.at)

    def take(self, pieces: Iterable[Piece]) -> None:
        """Checked pieces; FaultError for what the server's storage could not read."""
        tally = self.tally
        for begin, length, kind, content, source in pieces:
            at = self.base + begin
            if kind is _DATA:
                self._write(at, content)
                tally.data += length
            elif kind is _ZERO:
                tally.zero += length
            elif kind is _SAME:
                self._repeat(at, length, self.base + source)
                tally.repeated += length
            elif kind is _UNREADABLE:
                position = next(self.work.places(at, length)).offset
                raise FaultError(address=position, length=length, space=self._space, kind="unreadable")
            else:
                tally.nothing += length
            self.at = at + length

    def plain(self, content: memoryview) -> None:
        """Bytes as they are in the resource; pages of zeros become holes."""
        lead = -self.at % PAGE
        pages = max(0, len(content) - lead) // PAGE
        if not pages:
            self._plain(content)
            return
        filled = np.frombuffer(content, np.uint64, pages * PAGE // 8, lead).reshape(pages, -1).any(axis=1)
        edges = (np.flatnonzero(np.diff(filled)) + 1) * PAGE + lead
        cuts = [0, *([lead] if lead else []), *edges.tolist(), lead + pages * PAGE, len(content)]
        for low, high in pairwise(cuts):
            if low < high:
                self._plain(content[low:high])

    def _plain(self, content: memoryview) -> None:
        if content[0] or content.tobytes().strip(b"\0"):
            self._write(self.at, content)
            self.tally.data += len(content)
        else:
            self.tally.zero += len(content)
        self.at += len(content)

    def _repeat(self, at: int, length: int, source: int) -> None:
        for begin, size in self.work.places(source, length):
            for position, part in self.work.places(at, size):
                self._part.copy(begin, part, position)
                begin += part
            at += size

    def _write(self, at: int, content: memoryview) -> None:
        for position, length in self.work.places(at, len(content)):
            self._part.write(content[:length], position)
            content = content[length:]
