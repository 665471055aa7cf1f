"""Batches: the way over POST /pages: zeros and repeated pages are named and not sent, data is checked frame by frame."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from typing import Final

from farcore.batch import Batch, Item
from farcore.batch import Space as Asked
from farcore_client.exchange import Exchange
from farcore_client.line import Line, Lines
from farcore_client.partial import Resource
from farcore_client.pull.landing import Landing
from farcore_client.pull.limit import Limit
from farcore_client.pull.pace import Pace

# Bytes of the resource in one batch: repeated pages are found within one, so it should be large ...
LARGEST: Final = 1 << 30
# ... but where there is more than one connection's worth, each of them gets its share.
SHARE: Final = 256 << 20
# While the level is still looked for.
TRIAL: Final = 64 << 20


class Batches:
    """Fetches works of one version of one dump, of which ``path`` answers batches."""

    name = "pages"

    def __init__(self, lines: Lines, path: str, space: Asked, version: Resource, pace: Pace, limit: Limit) -> None:
        self._lines, self._path, self._space, self._version = lines, path, space, version
        self.pace, self._limit = pace, limit
        self._busy = 0

    def most(self, missing: int, jobs: int) -> int:
        """Bytes of the next work."""
        return TRIAL if self.pace.trying else min(LARGEST, max(SHARE, missing // jobs))

    async def fetch(self, landing: Landing, threads: Executor) -> None:
        """All that is left of its work; what has landed when an error comes is there and checked."""
        level = self.pace.wanted()
        # Looking for repeats takes longer than a link brings them on which nothing is compressed.
        batch = Batch.of([Item(self._space, *each) for each in landing.rest()], level, repeats=level is not None)
        line = self._lines.take()
        self._busy += 1
        began, sharing = time.monotonic(), self._busy
        try:
            await asyncio.get_running_loop().run_in_executor(threads, self._bring, line, batch, landing)
        except BaseException:
            line.cut()
            self.pace.fail(level)
            raise
        finally:
            sharing, self._busy = max(sharing, self._busy), self._busy - 1
        self._lines.give_back(line)
        # The rate is the link's, and not a connection's: as many as there were had the same.
        self.pace.record(level, sharing * batch.total, time.monotonic() - began)

    def _bring(self, line: Line, batch: Batch, landing: Landing) -> None:
        """In a thread: received where it is decoded, and written."""
        exchange = Exchange(line, self._path, batch, self._version.etag)
        for size, pieces in exchange.pieces():
            landing.tally.wire += size
            landing.take(pieces)
            if pause := self._limit.owed(size):
                time.sleep(pause)
