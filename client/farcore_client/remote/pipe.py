"""Pipe: plain ranges of a dump over one kept connection of a thread of its own, received where they will be read.

aiohttp costs more CPU than all the rest of a read in sequence over loopback; http.client over a blocking socket leaves the
copying to the kernel, outside the interpreter's lock. It never retries and never says why: what it cannot bring, or not in
time, is asked for by the courier, who does both.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, cast

import numpy as np

from farcore import __version__
from farcore.batch import Space
from farcore.errors import FarcoreError
from farcore.source import Extent
from farcore_client.partial import Resource, demand
from farcore_client.session import Session

# Seconds without a byte until the connection is given up.
SILENCE: Final = 3.0
# Seconds after trouble in which nothing is asked for here.
REST: Final = 5.0

# Hears of what came: bytes, and seconds since they were asked for.
Came = Callable[[int, float], object]


class Pipe:
    """Ranges of the version ``etag``, one after another; made for the session's server, with its credentials."""

    def __init__(self, session: Session, paths: dict[Space, str], etag: str, sizes: dict[str, int], came: Came) -> None:
        self._session, self._paths, self._etag, self._sizes, self._came = session, paths, etag, sizes, came
        self._connection: http.client.HTTPConnection | None = None
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
        connection = self._connection
        found = connection.sock if connection else None
        if found is not None:
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # wakes the thread, under TLS as well

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
        except (FarcoreError, OSError, http.client.HTTPException, ValueError):
            found = None
        if found is None:
            self._rests_until = time.monotonic() + REST
            self._hang_up()
        else:
            self._came(extent.length, time.monotonic() - began)
        if self._closed:
            self._hang_up()
        return found

    def _ask(self, space: Space, extent: Extent) -> memoryview | None:
        """The bytes; None if fewer come."""
        connection = self._connection = self._connection or self._dial()
        fields = {
            "User-Agent": f"farcore/{__version__}",
            "Range": f"bytes={extent.offset}-{extent.offset + extent.length - 1}",
            "If-Match": self._etag,
        }
        if self._session.credentials.token:
            fields["Authorization"] = f"Bearer {self._session.credentials.token}"
        connection.request("GET", self._paths[space], headers=fields)
        answer = connection.getresponse()
        headers = cast("Mapping[str, str]", answer.headers)  # get() of either is all that is used
        demand(answer.status, headers, extent, Resource(self._sizes[space], self._etag))
        # Not zeroed: every byte is received, or nobody sees it.
        whole = np.empty(extent.length, np.uint8).data
        received = 0
        while received < extent.length and (came := answer.readinto(whole[received:])):
            received += came
        if received == extent.length:
            answer.read()  # the end of the body, so that the connection is kept
            return whole.toreadonly()
        return None

    def _dial(self) -> http.client.HTTPConnection:
        server, context = self._session.server, self._session.context
        if context is None:
            return http.client.HTTPConnection(server.host, server.port, timeout=SILENCE)
        return http.client.HTTPSConnection(server.host, server.port, timeout=SILENCE, context=context)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
