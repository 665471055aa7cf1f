"""Read-ahead as a pure function of the recent reads: several readers in sequence at once, each with a window that grows.

Numbers are pages. A Head is where one of them stands; a read that goes on where a head stands moves it, and doubles its
window when the pages ahead become few; any other read that misses brings the block around it, and is a new head.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Threads of one reader overtake each other: a read so far behind its head still belongs to it.
SLACK: Final = 64
MAX_HEADS: Final = 8


class Head(NamedTuple):
    """One reader in sequence: past its last read, past what was asked for, and how much is asked for at a time."""

    at: int
    ahead: int
    window: int


class Pages(NamedTuple):
    """The pages [start, stop)."""

    start: int
    stop: int


class Advice(NamedTuple):
    """The heads after a read, and the pages to bring besides what was read, held or not; empty for none."""

    heads: tuple[Head, ...]
    fetch: Pages


NONE: Final = Pages(0, 0)


def advise(heads: tuple[Head, ...], read: Pages, *, missed: bool, block: int, window: int) -> Advice:
    """What a read of these pages calls for, with blocks of ``block`` pages and at most ``window`` ahead of a head."""
    for i, head in enumerate(heads):
        if head.at - SLACK <= read.start <= head.ahead and read.stop > head.at:
            moved, fetch = _onward(head, read, window)
            return Advice((moved, *heads[:i], *heads[i + 1 :]), fetch)
    if not missed:
        return Advice(heads, NONE)
    start = read.start - read.start % block
    stop = max(read.stop, start + block)
    return Advice((Head(read.stop, stop, block), *heads[: MAX_HEADS - 1]), Pages(start, stop))


def _onward(head: Head, read: Pages, most: int) -> tuple[Head, Pages]:
    at = read.stop
    if head.ahead - at >= head.window // 2:
        return head._replace(at=at), NONE
    window = max(min(2 * head.window, most), 1)
    start = max(head.ahead, at)
    return Head(at, start + window, window), Pages(start, start + window)
