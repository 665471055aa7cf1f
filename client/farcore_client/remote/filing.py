"""Filing: the answer to a batch of whole pages, put into the cache page by page as it comes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from farcore.batch import Item, Part
from farcore.errors import FaultKind
from farcore.frames import Found
from farcore_client.remote.cache import PAGE, SHIFT, Hole, PageCache, key, place

_HOLES: Final[dict[Found, FaultKind]] = {
    Found.EXCLUDED: "excluded",
    Found.ABSENT: "absent",
    Found.UNREADABLE: "unreadable",
}


def items(keys: Iterable[int], sizes: dict[str, int]) -> list[Item]:
    """What to ask for to have these pages: neighbours as one, in the order given; the last page ends where its space does."""
    found: list[Item] = []
    start = stop = -1
    for one in keys:
        if one != stop:
            if stop > start:
                found.append(_item(start, stop, sizes))
            start = one
        stop = one + 1
    if stop > start:
        found.append(_item(start, stop, sizes))
    return found


def _item(start: int, stop: int, sizes: dict[str, int]) -> Item:
    space, page = place(start)
    offset = page << SHIFT
    return Item(space, offset, min((stop - start) << SHIFT, sizes[space] - offset))


class Filing:
    """Takes the parts of one answer; ``filed`` hears of every page that is in the cache, by key and count."""

    def __init__(self, wanted: list[Item], cache: PageCache, filed: Callable[[int, int], object]) -> None:
        self._wanted, self._cache, self._filed = wanted, cache, filed
        self._content = bytearray()
        self._holes: list[Hole] = []

    def take(self, parts: Iterable[Part]) -> None:
        """Put what came into the cache."""
        for item, offset, length, kind, content in parts:
            space, start, whole = self._wanted[item]
            at, end = start + offset, start + whole
            while length:
                one = key(space, at >> SHIFT)
                # All that is whole pages of this part at once; the rest waits for the rest of its page.
                bulk = length if at + length == end else length & ~(PAGE - 1)
                if at & (PAGE - 1) or self._content or bulk < PAGE:
                    step = min(length, PAGE - (at & (PAGE - 1)))
                    self._append(kind, content[:step], step)
                    if (at + step) & (PAGE - 1) == 0 or at + step == end:
                        self._page(one)
                else:
                    step = bulk
                    self._pages(one, kind, content[:step], step)
                at, length, content = at + step, length - step, content[step:]

    def _pages(self, first: int, kind: Found, content: memoryview, length: int) -> None:
        count = (length + PAGE - 1) >> SHIFT
        if kind is Found.DATA:
            self._cache.put(first, content)
        elif kind is Found.ZERO:
            self._cache.put_zeros(first, count)
        else:
            for page in range(count):
                end = min(PAGE, length - (page << SHIFT))
                self._cache.put_holes(first + page, (Hole(0, end, _HOLES[kind]),), None)
        self._filed(first, count)

    def _append(self, kind: Found, content: memoryview, length: int) -> None:
        at = len(self._content)
        if kind in _HOLES:
            why = _HOLES[kind]
            if self._holes and (self._holes[-1].stop, self._holes[-1].kind) == (at, why):
                self._holes[-1] = self._holes[-1]._replace(stop=at + length)
            else:
                self._holes.append(Hole(at, at + length, why))
        self._content += content if kind is Found.DATA else bytes(length)

    def _page(self, one: int) -> None:
        content, holes = memoryview(bytes(self._content)), tuple(self._holes)
        self._content.clear()
        self._holes.clear()
        if holes:
            self._cache.put_holes(one, holes, content)
        else:
            self._cache.put(one, content)
        self._filed(one, 1)
