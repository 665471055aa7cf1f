"""Pipe: plain ranges of a dump over one kept connection of a thread of its own, received where they will be read.

Frames and pages cost more CPU than all the rest of a read in sequence over loopback; a range is received by the kernel, outside
the interpreter's lock. A request costs both ends as much as a megabyte does: so one is made for a long range, whose body is
read on as long as what is wanted goes on. It never says why: what it cannot bring, or not in time, is asked for by the courier,
who retries and says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Final

from farcore.batch import Space
from farcore.errors import FarcoreError
from farcore.room import room
from farcore.source import Extent
from farcore_client.line import Lines, fields_of
from farcore_client.partial import Resource, demand

# Seconds without a byte until the connection is given up.
SILENCE: Final = 3.0
# Seconds after trouble in which nothing is asked for here.
REST: Final = 5.0

# Bytes of one request at most: a reader who stops has left some of them in the sockets' buffers.
LONG: Final = 64 << 20

# Hears of what came: bytes, seconds, and how many requests that took.
Came = Callable[[int, float, int], object]


@dataclass(slots=True)
class _Body:
    """What an answer to a request for ``length`` bytes still brings: ``left`` of them, from ``at`` on."""

    answer: HTTPResponse
    space: Space
    at: int
    length: int
    left: int

    def has(self, space: Space, extent: Extent) -> bool:
        return (space, extent.offset) == (self.space, self.at) and extent.length <= self.left

    def take(self, length: int) -> memoryview | None:
        """The next bytes; None if fewer come."""
        whole = room(length)
        received = 0
        while received < length and (came := self.answer.readinto(whole[received:])):
            received += came
        self.at, self.left = self.at + received, self.left - received
        if received < length:
            return None
        if not self.left:
            self.answer.read()  # the end of the body, so that the connection is kept
        return whole.toreadonly()


class Pipe:
    """Ranges of the version ``etag``, one after another."""

    def __init__(self, lines: Lines, paths: dict[Space, str], etag: str, sizes: dict[str, int], came: Came) -> None:
        self._paths, self._etag, self._sizes, self._came = paths, etag, sizes, came
        self._line = lines.another(SILENCE)
        self._body: _Body | None = None
        self._asked = 0
        self._worker = ThreadPoolExecutor(1, "farcore pipe")
        self._rests_until = 0.0
        self._closed = False

    def fetch(self, space: Space, extent: Extent) -> Future[memoryview | None]:
        """Exactly the bytes of ``extent``, or None for whatever reason; returns at once, and at rest with None."""
        if not self._closed and time.monotonic() >= self._rests_until:
            with suppress(RuntimeError):  # closed since
                return self._worker.submit(self._bring, space, extent)
        nothing: Future[memoryview | None] = Future()
        nothing.set_result(None)
        return nothing

    def rest(self) -> None:
        """Give up what is under way, and ask for nothing in the next seconds; any thread."""
        self._rests_until = time.monotonic() + REST
        self._line.cut()

    def close(self) -> None:
        """End the connection and the thread."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)
        self.rest()

    def _bring(self, space: Space, extent: Extent) -> memoryview | None:
        if time.monotonic() < self._rests_until:
            return None
        began, asked, kept = time.monotonic(), self._asked, self._body is not None
        found = self._received(space, extent)
        if found is None and kept:
            # A body that has waited for its reader may have been cut meanwhile, which says nothing of the server.
            found = self._received(space, extent)
        if found is None:
            self._rests_until = time.monotonic() + REST
        else:
            self._came(extent.length, time.monotonic() - began, self._asked - asked)
        if self._closed:
            self._hang_up()
        return found

    def _received(self, space: Space, extent: Extent) -> memoryview | None:
        """The bytes; None if fewer come, and then the connection is gone."""
        found: memoryview | None = None
        with suppress(FarcoreError, OSError, HTTPException, ValueError):
            if self._body is None or not self._body.has(space, extent):
                self._body = self._ask(space, extent)
            found = self._body.take(extent.length)
        if found is None:
            self._hang_up()
        return found

    def _ask(self, space: Space, extent: Extent) -> _Body:
        """An answer that begins with the extent, and is the longer the longer one reader has gone on."""
        before, length, size = self._body, extent.length, self._sizes[space]
        if before is not None and before.left:
            self._hang_up()
        elif before is not None and (before.space, before.at) == (space, extent.offset):
            length = max(length, min(2 * before.length, LONG, size - extent.offset))
        whole = Extent(extent.offset, length)
        self._asked += 1
        asked = {"Range": f"bytes={whole.offset}-{whole.offset + length - 1}", "If-Match": self._etag}
        answer = self._line.ask("GET", self._paths[space], asked)
        demand(answer.status, fields_of(answer), whole, Resource(size, self._etag))
        return _Body(answer, space, whole.offset, length, length)

    def _hang_up(self) -> None:
        self._body = None
        self._line.close()
