"""Pipe: plain ranges of a dump over one kept connection of a thread of its own, received where they will be read.

Frames and pages cost more CPU than all the rest of a read in sequence over loopback; a range is received by the kernel, outside
the interpreter's lock. It never retries and never says why: what it cannot bring, or not in time, is asked for by the courier,
who does both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from typing import Final

import numpy as np

from farcore.batch import Space
from farcore.errors import FarcoreError
from farcore.source import Extent
from farcore_client.line import Lines, fields_of
from farcore_client.partial import Resource, demand

# Seconds without a byte until the connection is given up.
SILENCE: Final = 3.0
# Seconds after trouble in which nothing is asked for here.
REST: Final = 5.0

# Hears of what came: bytes, and seconds since they were asked for.
Came = Callable[[int, float], object]


class Pipe:
    """Ranges of the version ``etag``, one after another."""

    def __init__(self, lines: Lines, paths: dict[Space, str], etag: str, sizes: dict[str, int], came: Came) -> None:
        self._paths, self._etag, self._sizes, self._came = paths, etag, sizes, came
        self._line = lines.another(SILENCE)
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
        began = time.monotonic()
        try:
            found = self._ask(space, extent)
        except (FarcoreError, OSError, HTTPException, ValueError):
            found = None
        if found is None:
            self._rests_until = time.monotonic() + REST
            self._line.close()
        else:
            self._came(extent.length, time.monotonic() - began)
        if self._closed:
            self._line.close()
        return found

    def _ask(self, space: Space, extent: Extent) -> memoryview | None:
        """The bytes; None if fewer come."""
        asked = {"Range": f"bytes={extent.offset}-{extent.offset + extent.length - 1}", "If-Match": self._etag}
        answer = self._line.ask("GET", self._paths[space], asked)
        demand(answer.status, fields_of(answer), extent, Resource(self._sizes[space], self._etag))
        # Not zeroed: every byte is received, or nobody sees it.
        whole = np.empty(extent.length, np.uint8).data
        received = 0
        while received < extent.length and (came := answer.readinto(whole[received:])):
            received += came
        if received == extent.length:
            answer.read()  # the end of the body, so that the connection is kept
            return whole.toreadonly()
        return None
