"""Body: the pieces that an answer's bytes are sent in. Pure: which bytes, in what order, none larger than PIECE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from farcore.layout import Layout
from farcore.runs import Kind
from farcore.source import Extent
from farcore_server.answer import Part

# At most this much of a stream in a turn of the event loop: 2 MiB is 0.3 ms of a core, and what nginx sends at once.
PIECE: Final = 2 << 20
# Extents up to here are copied before they are sent; larger ones are sent by PIECE, from the file or its map. The end of a run
# is always of the first kind, so that a body's last bytes are read, its file is looked at once more, and then they are sent.
COPIED: Final = 64 << 10
ZEROS: Final = memoryview(bytes(64 << 10))


def pieces(layout: Layout, parts: Iterable[Part], *, fill: bool) -> Iterator[memoryview | Extent]:
    """Literal bytes, PIECE at most, and Extents of the dump's file, in the order they are sent in; FaultError at a hole."""
    for head, start, stop in parts:
        if head:
            yield memoryview(head)
        composed = memoryview(layout.head)[start:stop]
        for at in range(0, len(composed), PIECE):
            yield composed[at : at + PIECE]
        for run in layout.walk(start, stop, fill=fill):
            length = run.stop - run.start
            if run.kind is Kind.DATA:
                yield from _extents(run.offset, run.offset + length)
            else:
                for at in range(0, length, len(ZEROS)):
                    yield ZEROS[: length - at]


def _extents(start: int, stop: int) -> Iterator[Extent]:
    last = max(start, stop - COPIED)
    if start < last:
        yield Extent(start, last - start)
    yield Extent(last, stop - last)


def demand(layout: Layout, parts: Iterable[Part]) -> None:
    """FaultError if any position of the parts is a hole: asked before an answer's head is sent."""
    for _, start, stop in parts:
        for _ in layout.walk(start, stop):
            pass
