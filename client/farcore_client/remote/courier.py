"""Courier: asks a server for pages, in few requests at a time, and again while the server cannot be reached.

Runs in one event loop. Pages that somebody waits for have lanes (connections) of their own, so that they are not stuck
behind a prefetch. What is wanted while all lanes are busy goes together in the next batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from farcore.batch import Batch, Part, Space
from farcore.errors import FarcoreError, FrameError
from farcore_client.dumpurl import DumpUrl
from farcore_client.errors import BusyError, CutError, RefusedError, UnreachableError
from farcore_client.remote.cache import PageCache
from farcore_client.remote.filing import Filing, items
from farcore_client.remote.link import Link
from farcore_client.remote.pipe import Pipe
from farcore_client.session import Session, Transfer

# Connections: for what is waited for, and for what is not.
URGENT_LANES: Final = 4
LAZY_LANES: Final = 2
# Pages in one request: 16 MiB are waited for at once, and a prefetch is to be one batch.
MOST_URGENT: Final = 1 << 12
MOST_LAZY: Final = 1 << 14

# Seconds without a byte, over all attempts, until a read is an error: a mount says EIO within 40.
PATIENCE: Final = 32.0
# Seconds that reads get which come after that, each.
LAST_TRY: Final = 3.0
_FIRST_PAUSE, _MOST_PAUSE = 0.1, 1.5
# Seconds, besides two round trips, that a page of a prefetch may take before it is asked for on its own.
_MOMENT: Final = 0.02
# Pages to ask for on a way that cuts answers before their first frame has come.
_LEAST_ASKED: Final = 4
# An answer that came damaged so many times is not damaged by chance.
_MOST_DAMAGED: Final = 3


@dataclass(frozen=True, slots=True)
class Counts:
    """What has gone over the wire: requests for pages, bytes of whole answers, attempts that failed."""

    requests: int = 0
    received: int = 0
    failed: int = 0


class Courier:
    """``filed(key, count)`` hears of pages that came, ``failed(keys, error)`` of those that will not.

    Both are called in the loop's thread, ``filed`` with the ``lock`` held, under which the cache is written to as well.
    """

    def __init__(
        self,
        session: Session,
        dump: DumpUrl,
        etag: str,
        sizes: dict[str, int],
        cache: PageCache,
        *,
        normalised: bool,
        filed: Callable[[int, int], object],
        failed: Callable[[list[int], FarcoreError], object],
        lock: threading.Lock,
    ) -> None:
        self.session, self.etag, self.sizes, self.cache = session, etag, sizes, cache
        query = "?normalised" if normalised else ""
        self.path = f"{dump.path}/pages{query}"
        paths: dict[Space, str] = {"vmcore": f"{dump.path}/vmcore{query}", "stored": f"{dump.path}/stored"}
        self.pipe = Pipe(session, paths, etag, sizes, self._piped)
        self.link, self.counts = Link(), Counts()
        self._filed, self._failed, self._lock = filed, failed, lock
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[bool, deque[int]] = {True: deque(), False: deque()}
        self._free = {True: URGENT_LANES, False: LAZY_LANES}
        self._tasks: set[asyncio.Task[None]] = set()
        self._down_since: float | None = None

    def want(self, keys: list[int], *, urgent: bool) -> None:
        """Bring these pages; returns at once. Any thread may call this, with the lock held."""
        self._wanted[urgent].extend(keys)
        self._loop.call_soon_threadsafe(self._launch, urgent)

    def _piped(self, size: int, seconds: float) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._count_piped, size, seconds)

    def _count_piped(self, size: int, seconds: float) -> None:
        self.counts = replace(self.counts, requests=self.counts.requests + 1, received=self.counts.received + size)
        self.link = self.link.at_least(size / max(seconds, 1e-4))

    def hasten(self, keys: list[int]) -> None:
        """Somebody waits for these, which a prefetch is to bring: ask for them unless they are here in a moment."""
        self._loop.call_soon_threadsafe(self._loop.call_later, 2 * self.link.rtt + _MOMENT, self._overtake, keys)

    def _overtake(self, keys: list[int]) -> None:
        self._wanted[True].extend(keys)
        self._launch(True)

    def _launch(self, urgent: bool) -> None:
        wanted = self._wanted[urgent]
        while wanted and self._free[urgent]:
            most = MOST_URGENT if urgent else MOST_LAZY
            with self._lock:
                taken = [wanted.popleft() for _ in range(min(len(wanted), most))]
                keys = [key for key in taken if not self.cache.has(key)]
            if not keys:
                continue
            self._free[urgent] -= 1
            task = self._loop.create_task(self._bring(keys, urgent))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _bring(self, keys: list[int], urgent: bool) -> None:
        left = dict.fromkeys(keys)
        try:
            await self._persist(left)
        except FarcoreError as error:
            self._failed(list(left), error)
        finally:
            self._free[urgent] += 1
            self._launch(urgent)

    async def _persist(self, left: dict[int, None]) -> None:
        """Ask until nothing is ``left``; raises what is final, or what it was after PATIENCE."""
        loop = asyncio.get_running_loop()
        began, pause, damaged, most = loop.time(), _FIRST_PAUSE, 0, len(left)
        while left:
            before = len(left)
            try:
                await self._ask(left, most)
                began, pause, most = loop.time(), _FIRST_PAUSE, 2 * most
                continue
            except (UnreachableError, CutError, RefusedError, FrameError, TimeoutError) as error:
                self.counts = replace(self.counts, failed=self.counts.failed + 1)
                if len(left) < before:
                    began, pause = loop.time(), _FIRST_PAUSE
                elif isinstance(error, CutError):
                    most = max(most // 4, _LEAST_ASKED)
                damaged += isinstance(error, FrameError)
                self._judge(error, began, damaged)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE)

    def _judge(self, error: Exception, began: float, damaged: int) -> None:
        """Raises ``error`` if asking again will not help, or has not for long enough."""
        if isinstance(error, RefusedError) and not isinstance(error, BusyError):
            raise error
        if damaged >= _MOST_DAMAGED:
            raise error
        now = asyncio.get_running_loop().time()
        if self._down_since is None:
            self._down_since = began
        if now >= self._deadline(began):
            place = self.session.server.place
            what = str(error) or f"{place} does not answer"
            raise UnreachableError(f"{what} (tried for {now - self._down_since:.0f} s)") from error

    def _deadline(self, began: float) -> float:
        since = began if self._down_since is None else self._down_since
        return max(since + PATIENCE, began + LAST_TRY)

    async def _ask(self, left: dict[int, None], most: int) -> None:
        """One request for what is ``left``, ``most`` pages of it; what comes is taken out of it."""
        loop = asyncio.get_running_loop()
        wanted = items(islice(left, most), self.sizes)
        batch = Batch.of(wanted, self.link.level)

        def filed(first: int, count: int) -> None:
            for key in range(first, first + count):
                left.pop(key, None)
            self._filed(first, count)

        self.counts = replace(self.counts, requests=self.counts.requests + 1)
        filing = Filing(wanted, self.cache, filed)
        async with asyncio.timeout_at(self._deadline(loop.time())) as patience:

            def take(parts: Iterable[Part]) -> None:
                checked = list(parts)  # unpacked before readers are kept waiting
                with self._lock:
                    filing.take(checked)
                self._down_since = None
                patience.reschedule(loop.time() + PATIENCE)

            took = await self.session.pages(self.path, batch, self.etag, take)
            self._down_since = None
        self._learn(took, packed=batch.level is not None)

    def _learn(self, took: Transfer, *, packed: bool) -> None:
        self.link = self.link.after(took, packed=packed)
        self.counts = replace(self.counts, received=self.counts.received + took.size)
