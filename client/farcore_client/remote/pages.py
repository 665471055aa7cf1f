"""Pages: those of one version of a dump: which are here, which are on their way, and who waits for them.

Read by any number of threads. A page is asked for once however many want it; all that a read lacks is one request, and
what read-ahead wants besides goes in the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from itertools import islice
from typing import Final, Literal, NamedTuple, Protocol

from farcore.batch import Space
from farcore.errors import FarcoreError, SourceChangedError
from farcore.source import Extent
from farcore_client.remote import readahead, stream
from farcore_client.remote.cache import PAGE, SHIFT, PageCache, key, place
from farcore_client.remote.link import Link
from farcore_client.remote.pipe import Pipe
from farcore_client.remote.readahead import Head
from farcore_client.remote.stream import Stream

# now: a reader waits; near: the neighbours of that; later: a prefetch.
Haste = Literal["now", "near", "later"]
# Misses and touched pages that are remembered for a profile: 256 MiB of a dump, five times what a session reads, in 8 MB.
MAX_REMEMBERED: Final = 1 << 16
# Of the cache, what one request of a reader may fill, and all of a prefetch.
_READ_SHARE, _PREFETCH_SHARE = 4, 2
# Pages ahead of a reader until it is one in sequence for sure: what is asked for page by page costs ten times the CPU.
_IN_SEQUENCE: Final = 256
# Bytes to bring around a miss in a scattered range.
SCATTERED: Final = 64 << 10
# Pages behind one that is missed that come with it, in its own answer.
_WITH: Final = 3


class Missed(NamedTuple):
    """A page of 4 KiB that a reader had to wait for."""

    space: Space
    page: int


class Carrier(Protocol):
    """Who brings pages; both are called with the lock held."""

    @property
    def link(self) -> Link:
        """What is known of the way to the server."""
        ...

    def want(self, keys: list[int], haste: Haste) -> None:
        """Bring these pages; returns at once."""
        ...

    @property
    def pipe(self) -> Pipe:
        """Who brings large ranges."""
        ...

    def hasten(self, keys: list[int]) -> None:
        """Somebody waits for these, which are on their way without haste."""
        ...


class _Waiting:
    """A read that lacks ``left`` pages."""

    __slots__ = ("done", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.done: Future[None] = Future()

    def one_less(self) -> None:
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: FarcoreError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Pages:
    """``carrier`` is set by who made it, before the first read."""

    carrier: Carrier

    def __init__(self, cache: PageCache, sizes: dict[str, int]) -> None:
        self.lock = threading.Lock()
        self.cache, self.sizes = cache, sizes
        # Pages that were here, that had to be brought, and that a prefetch asked for.
        self.hits = self.misses = self.prefetched = 0
        self.missed: dict[int, None] = {}
        self.touched: dict[int, None] = {}
        self._waiting: dict[int, list[_Waiting]] = {}
        self._lazy: set[int] = set()
        self._heads: dict[Space, tuple[Head, ...]] = {}
        self._streams: dict[Space, Stream] = {}
        self._ended: FarcoreError | None = None
        self._aside = threading.local()
        # Where neighbours of what is read are rarely read, and do not compress: a kernel's text.
        self.scattered: tuple[range, ...] = ()
        # What is read together with a page that is missed, wherever it lies: keys, none where nobody knows.
        self.kin: Callable[[Space, int], list[int]] = lambda space, page: []

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What this thread reads meanwhile is not remembered: it is nothing that the session itself wanted to know."""
        self._aside.on = True
        try:
            yield
        finally:
            self._aside.on = False

    def at_hand(self, key: int, within: int, length: int) -> bytes | None:
        """Bytes of a page that is here and was read before: the read that a debugger makes a hundred thousand times."""
        if within + length > PAGE:
            return None
        with self.lock:
            if self._ended is not None or (key not in self.touched and len(self.touched) < MAX_REMEMBERED):
                return None
            found = self.cache.peek(key, within, length)
            self.hits += found is not None
            return found

    def read(self, space: Space, extents: Sequence[Extent]) -> list[memoryview]:
        """One memoryview an extent, all of them inside the space; what is missing is asked for at once."""
        if len(extents) == 1 and extents[0].length >= stream.LEAST and (found := self._streamed(space, extents[0])):
            return [found]
        most = max(self.cache.slots // _READ_SHARE << SHIFT, PAGE)
        if sum(length for _, length in extents) <= most:
            return self._read(space, extents)
        return [self._long(space, extent, most) for extent in extents]

    def _streamed(self, space: Space, extent: Extent) -> memoryview | None:
        """A large read that goes on where others ended, on a fast link; None for any other, and where the stream fails."""
        if extent.length > stream.PIECE:
            return None
        with self.lock:
            if self._ended is not None or not self._goes_on(space, extent):
                return None
            if space not in self._streams:
                self._streams[space] = Stream(space, self.sizes[space], self.carrier.pipe.fetch)
            pieces = self._streams[space].pieces(extent)
        wait([piece for piece, _, _ in pieces], stream.PATIENCE)
        found: list[memoryview] = []
        for piece, start, stop in pieces:
            content = stream.content(piece)
            if content is None:
                with self.lock:
                    self._streams[space].drop(piece)
                if not piece.done():
                    self.carrier.pipe.rest()
                return None
            found.append(content[start:stop])
        return found[0] if len(found) == 1 else memoryview(b"".join(found))

    def _goes_on(self, space: Space, extent: Extent) -> bool:
        """Whether a reader in sequence has come this far; its head moves along."""
        link = self.carrier.link
        if link.level is not None or space == "physical":
            return False
        most, page, heads = link.window >> SHIFT, extent.offset >> SHIFT, self._heads.get(space, ())
        for i, head in enumerate(heads):
            if head.window >= min(most, _IN_SEQUENCE) and abs(page - head.at) <= most:
                at = max(head.at, (extent.offset + extent.length) >> SHIFT)
                self._heads[space] = (Head(at, at, head.window), *heads[:i], *heads[i + 1 :])
                return True
        return False

    def _long(self, space: Space, extent: Extent, most: int) -> memoryview:
        # What is larger than the cache cannot be in it at once.
        whole = bytearray(extent.length)
        for at in range(0, extent.length, most):
            (piece,) = self._read(space, [Extent(extent.offset + at, min(most, extent.length - at))])
            whole[at : at + len(piece)] = piece
        return memoryview(whole).toreadonly()

    def _read(self, space: Space, extents: Sequence[Extent]) -> list[memoryview]:
        first = True
        while True:
            with self.lock:
                if self._ended is not None:
                    raise self._ended
                missing = self._missing(space, extents, count=first)
                ahead = self._ahead(space, extents, missed=bool(missing)) if first else []
                waiting = self._enqueue(missing, ahead)
                if waiting is None:
                    return [memoryview(self.cache.read(space, *extent)) if extent.length else _NOTHING for extent in extents]
            first = False
            waiting.done.result()

    def prefetch(self, space: Space, extents: Sequence[Extent]) -> Future[None]:
        """Bring these, as one batch, behind what readers wait for; the first ones if not all fit half of the cache.

        The future is done when the last of them has come, or will not.
        """
        with self.lock:
            if self._ended is not None:
                raise self._ended
            wanted = (one for extent in extents for one in self._keys(space, extent) if self._is_new(one))
            keys = sorted(dict.fromkeys(islice(wanted, self.cache.slots // _PREFETCH_SHARE)))
            waiting = _Waiting(len(keys))
            for one in keys:
                self._waiting[one] = [waiting]
            self._lazy.update(keys)
            self.prefetched += len(keys)
            if keys:
                self.carrier.want(keys, "later")
            else:
                waiting.done.set_result(None)
        return waiting.done

    def _keys(self, space: Space, extent: Extent) -> range:
        stop = min(extent.offset + extent.length, self.sizes[space])
        return range(key(space, extent.offset >> SHIFT), key(space, (stop + PAGE - 1) >> SHIFT))

    def _is_new(self, key: int) -> bool:
        return not self.cache.has(key) and key not in self._waiting

    def filed(self, first: int, count: int) -> None:
        """These pages are in the cache now; called with the lock held."""
        for one in range(first, first + count):
            for waiting in self._waiting.pop(one, ()):
                waiting.one_less()
            self._lazy.discard(one)

    def failed(self, keys: Sequence[int], error: FarcoreError) -> None:
        """These will not come. A dump that has changed is the end of all reads: never bytes of two versions."""
        with self.lock:
            if isinstance(error, SourceChangedError):
                self._ended, keys = error, list(self._waiting)
            self._give_up(keys, error)

    def end(self, error: FarcoreError) -> None:
        """No more reads: those that wait and those to come fail with ``error``."""
        with self.lock:
            self._ended = self._ended or error
            self._give_up(list(self._waiting), self._ended)

    def _give_up(self, keys: Sequence[int], error: FarcoreError) -> None:
        for one in keys:
            for waiting in self._waiting.pop(one, ()):
                waiting.fail(error)
            self._lazy.discard(one)

    def _missing(self, space: Space, extents: Sequence[Extent], *, count: bool) -> list[int]:
        missing: dict[int, None] = {}
        pages = 0
        count = count and not getattr(self._aside, "on", False)
        for offset, length in extents:
            for one in range(key(space, offset >> SHIFT), key(space, (offset + length + PAGE - 1) >> SHIFT)) if length else ():
                pages += 1
                if not self.cache.has(one):
                    missing[one] = None
                if count and one not in self.touched and len(self.touched) < MAX_REMEMBERED:
                    self.touched[one] = None
        if count:
            self.hits += pages - len(missing)
            self.misses += len(missing)
            if len(self.missed) < MAX_REMEMBERED:
                self.missed.update(missing)
        return list(missing)

    def _ahead(self, space: Space, extents: Sequence[Extent], *, missed: bool) -> list[int]:
        """The pages that read-ahead wants, which are neither here nor on their way."""
        # A batch is somebody's plan: what it leaves out was left out on purpose; and who reads aside knows what it wants.
        if len(extents) != 1 or extents[0].length == 0 or getattr(self._aside, "on", False):
            return []
        ((offset, length),) = extents
        if missed and (kin := self.kin(space, offset >> SHIFT)):
            return [one for one in kin if not self.cache.has(one) and one not in self._waiting]
        link, size = self.carrier.link, self.sizes[space]
        most = max(min(link.window, self.cache.slots * PAGE // 8), PAGE) >> SHIFT
        block = min(link.block >> SHIFT, most)
        if any(key(space, offset >> SHIFT) in keys for keys in self.scattered):
            block = min(block, SCATTERED >> SHIFT)
        read = readahead.Pages(offset >> SHIFT, (offset + length + PAGE - 1) >> SHIFT)
        advice = readahead.advise(self._heads.get(space, ()), read, missed=missed, block=block, window=most)
        self._heads[space] = advice.heads
        stop = min(advice.fetch.stop, (size + PAGE - 1) >> SHIFT)
        keys = range(key(space, advice.fetch.start), key(space, stop))
        return [one for one in keys if not self.cache.has(one) and one not in self._waiting]

    def _enqueue(self, missing: list[int], ahead: list[int]) -> _Waiting | None:
        """What the read has to wait for, None if nothing is missing."""
        waiting = _Waiting(len(missing)) if missing else None
        asked, late = [], []
        for one in missing:
            others = self._waiting.get(one)
            if others is None:
                others = self._waiting[one] = []
                asked.append(one)
            elif one in self._lazy:
                self._lazy.discard(one)
                late.append(one)
            if waiting is not None:
                others.append(waiting)
        if asked and self.carrier.link.far:
            # What is allocated together is read together; so few pages are no more packets than one.
            soon = [one for one in ahead if one not in self._waiting and 0 < one - asked[-1] <= _WITH]
            self._waiting.update((one, []) for one in soon)
            asked += soon
        beside = [one for one in ahead if one not in self._waiting]
        self._waiting.update((one, []) for one in beside)
        if not self.carrier.link.far:
            asked, beside = sorted(asked + beside), []
        if asked:
            self.carrier.want(asked, "now")
        if beside:
            # An answer of more than 14 KB takes a second round trip on a connection that was idle (RFC 6928).
            self.carrier.want(beside, "near")
        if late:
            self.carrier.hasten(late)
        return waiting


_NOTHING: Final = memoryview(b"")


def places(keys: dict[int, None]) -> list[Missed]:
    """The pages of these keys, in their order."""
    return [Missed(*place(one)) for one in keys]
