"""Courier: asks a server for pages, in few requests at a time, and again while the server cannot be reached.

Each lane is a thread with a connection of its own, which blocks: an event loop would be one more hand-over on the way of a
page that somebody waits for, and takes longer to import than such a page to come. What is waited for, what read-ahead wants
beside it and what a prefetch wants have lanes of their own, so that none is stuck behind another. What is wanted while all
lanes are busy goes together in the next batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from farcore.batch import Batch, Space
from farcore.errors import FarcoreError, FrameError
from farcore_client.dumpurl import DumpUrl
from farcore_client.errors import BusyError, CutError, RefusedError, UnreachableError
from farcore_client.exchange import Exchange, Transfer
from farcore_client.line import Line, Lines
from farcore_client.remote.cache import PageCache
from farcore_client.remote.filing import Filing, items
from farcore_client.remote.link import Link
from farcore_client.remote.pages import Haste
from farcore_client.remote.pipe import Pipe
from farcore_client.remote.shelf import Shelf

# Connections for each.
LANES: Final[dict[Haste, int]] = {"now": 4, "near": 2, "later": 2}
# Pages in one request: 16 MiB are waited for at once, and a prefetch is to be one batch.
MOST: Final[dict[Haste, int]] = {"now": 1 << 12, "near": 1 << 12, "later": 1 << 14}

# Pages that are more than an idle connection carries in its first round trip.
_WORTH_SHARING: Final = 16

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


@dataclass(slots=True, eq=False)
class _Queue:
    """What is wanted with one haste; ``some`` is notified for each of the ``idle`` lanes, of which there are ``lanes``."""

    some: threading.Condition
    wanted: deque[int] = field(default_factory=deque)
    lanes: int = 0
    idle: int = 0


class Courier:
    """``filed(key, count)`` hears of pages that came, ``failed(keys, error)`` of those that will not.

    ``filed`` is called with the ``lock`` held, under which the cache is written to as well; ``failed`` without.
    """

    def __init__(
        self,
        lines: Lines,
        dump: DumpUrl,
        etag: str,
        sizes: dict[str, int],
        cache: PageCache,
        *,
        normalised: bool,
        filed: Callable[[int, int], object],
        failed: Callable[[list[int], FarcoreError], object],
        lock: threading.Lock,
        shelf: Shelf | None = None,
    ) -> None:
        self.lines, self.etag, self.sizes, self.cache = lines, etag, sizes, cache
        query = "?normalised" if normalised else ""
        self.path = f"{dump.path}/pages{query}"
        paths: dict[Space, str] = {"vmcore": f"{dump.path}/vmcore{query}", "stored": f"{dump.path}/stored"}
        self.pipe = Pipe(lines, paths, etag, sizes, self._count_piped)
        self.link, self.counts = Link(), Counts()
        self._filed, self._failed, self._lock, self._shelf = filed, failed, lock, shelf
        self._queues: dict[Haste, _Queue] = {haste: _Queue(threading.Condition(lock)) for haste in LANES}
        self._lines_taken: set[Line] = set()
        self._closed = threading.Event()
        self._down_since: float | None = None

    def want(self, keys: list[int], haste: Haste) -> None:
        """Bring these pages; returns at once. Called with the lock held."""
        queue = self._queues[haste]
        queue.wanted.extend(keys)
        if queue.idle:
            queue.idle -= 1
            queue.some.notify()
        elif queue.lanes < LANES[haste]:
            queue.lanes += 1
            threading.Thread(target=self._lane, args=(haste,), name="farcore lane", daemon=True).start()

    def hasten(self, keys: list[int]) -> None:
        """Somebody waits for these, which are on their way without haste: ask for them unless they are here in a moment."""
        timer = threading.Timer(2 * self.link.rtt + _MOMENT, self._overtake, (keys,))
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """End the connections, and what waits for them."""
        self._closed.set()
        self.pipe.close()
        with self._lock:
            for queue in self._queues.values():
                queue.some.notify_all()
            for line in self._lines_taken:
                line.cut()

    def _overtake(self, keys: list[int]) -> None:
        with self._lock:
            self.want(keys, "now")

    def _count_piped(self, size: int, seconds: float, requests: int) -> None:
        with self._lock:
            counts = self.counts
            self.counts = replace(counts, requests=counts.requests + requests, received=counts.received + size)
            self.link = self.link.at_least(size / max(seconds, 1e-4))

    def _lane(self, haste: Haste) -> None:
        """Brings what is wanted until the courier is closed."""
        queue, line = self._queues[haste], self.lines.take()
        with self._lock:
            self._lines_taken.add(line)
        while True:
            with self._lock:
                while not (queue.wanted or self._closed.is_set()):
                    queue.idle += 1
                    queue.some.wait()
                taken = [queue.wanted.popleft() for _ in range(min(len(queue.wanted), self._share(haste)))]
                if queue.wanted:
                    self.want([], haste)
                keys = [key for key in taken if not self.cache.has(key)]
            if self._closed.is_set():
                line.close()
                return
            if keys:
                self._bring(line, keys)

    def _share(self, haste: Haste) -> int:
        """How many of the pages that are wanted one lane takes."""
        queue, most = self._queues[haste], MOST[haste]
        wanted, free = len(queue.wanted), LANES[haste] - queue.lanes + queue.idle
        if haste == "now" or not self.link.far or wanted < _WORTH_SHARING:
            return most
        # A connection that was idle starts with 14 KB a round trip: two are sooner through with it.
        return min(most, -(-wanted // (1 + free)))

    def _bring(self, line: Line, keys: list[int]) -> None:
        left = dict.fromkeys(keys)
        if self._shelf is not None:
            for key in self._shelf.recall(keys, self._filed):
                del left[key]
        try:
            self._persist(line, left)
        except FarcoreError as error:
            self._failed(list(left), error)

    def _persist(self, line: Line, left: dict[int, None]) -> None:
        """Ask until nothing is ``left``; raises what is final, or what it was after PATIENCE."""
        began, pause, damaged, most = time.monotonic(), _FIRST_PAUSE, 0, len(left)
        while left:
            before = len(left)
            try:
                self._ask(line, left, most)
                began, pause, most = time.monotonic(), _FIRST_PAUSE, 2 * most
                continue
            except (UnreachableError, CutError, RefusedError, FrameError) as error:
                with self._lock:
                    self.counts = replace(self.counts, failed=self.counts.failed + 1)
                if len(left) < before:
                    began, pause = time.monotonic(), _FIRST_PAUSE
                elif isinstance(error, CutError):
                    most = max(most // 4, _LEAST_ASKED)
                damaged += isinstance(error, FrameError)
                self._judge(error, began, damaged)
            self._closed.wait(pause)
            pause = min(2 * pause, _MOST_PAUSE)

    def _judge(self, error: FarcoreError, began: float, damaged: int) -> None:
        """Raises ``error`` if asking again will not help, or has not for long enough."""
        if isinstance(error, RefusedError) and not isinstance(error, BusyError):
            raise error
        if damaged >= _MOST_DAMAGED or self._closed.is_set():
            raise error
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = began
        if now >= self._deadline(began):
            raise UnreachableError(f"{error} (tried for {now - self._down_since:.0f} s)") from error

    def _deadline(self, began: float) -> float:
        since = began if self._down_since is None else self._down_since
        return max(since + PATIENCE, began + LAST_TRY)

    def _ask(self, line: Line, left: dict[int, None], most: int) -> None:
        """One request for what is ``left``, ``most`` pages of it; what comes is taken out of it."""
        wanted = items(islice(left, most), self.sizes)
        batch = Batch.of(wanted, self.link.level)
        came: list[tuple[int, int]] = []

        def filed(first: int, count: int) -> None:
            for key in range(first, first + count):
                left.pop(key, None)
            self._filed(first, count)
            came.append((first, count))

        filing = Filing(wanted, self.cache, filed)
        now = time.monotonic()
        line.patience(min(self.lines.silence, self._deadline(now) - now))
        exchange = Exchange(line, self.path, batch, self.etag)
        with self._lock:
            self.counts = replace(self.counts, requests=self.counts.requests + 1)
        for _, pieces in exchange.pieces():
            parts = list(batch.split(pieces))  # unpacked before readers are kept waiting
            with self._lock:
                filing.take(parts)
            if self._shelf is not None:
                self._shelf.keep([*came])
                came.clear()
            self._down_since = None
        self._learn(exchange.took, packed=batch.level is not None)

    def _learn(self, took: Transfer, *, packed: bool) -> None:
        with self._lock:
            self._down_since = None
            self.link = self.link.after(took, packed=packed)
            self.counts = replace(self.counts, received=self.counts.received + took.size)
