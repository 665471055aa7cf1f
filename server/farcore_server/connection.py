"""Connection: aiohttp's protocol, of any version, with an end to patience, little buffer and an answer to what is no HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from farcore_server.problem import SERVER, Problem

LOG: Final = logging.getLogger(__name__)

# A new connection has so long, in seconds, for the head of its first request: the slowest link sends one sooner. For a later
# one it has as long as it may be idle (worker.KEEPALIVE, from the last answer on).
PATIENCE: Final = 30.0
# Requests that are read ahead, and bytes that are parsed at a time: a request of 30 bytes is kilobytes once it is parsed.
QUEUED: Final = 16
PARSED: Final = 4 << 10


class Connection(RequestHandler):
    """A RequestHandler of aiohttp 3.8 or later."""

    __slots__ = ("_impatience", "_patience")

    def __init__(self, manager: web.Server, *, patience: float = PATIENCE, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._patience = patience
        self._impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._impatience = self._loop.call_later(self._patience, self._await_no_longer)
        if self.transport is not None:
            # What is written is with the kernel or still with us: a full socket suspends the writer at once. TLS transports
            # pause a writer at the limit and not above it: at 0 they would do so with nothing to send, and for ever.
            self.transport.set_write_buffer_limits(high=1 if transport.get_extra_info("ssl_object") else 0)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait no more."""
        if self._impatience is not None:
            self._impatience.cancel()
        waiter, task = self._waiter, self._task_handler
        if waiter is not None and waiter.done() and task is not None:
            # aiohttp would take up what came in this very turn of the loop, with nothing left to answer it by, and fail.
            task.cancel()
        super().connection_lost(exc)

    def _await_no_longer(self) -> None:
        if self._request_count == 0:
            self.drop()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP is answered like every other error; aiohttp's own text would name what the server runs on."""
        if status != 400 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        super().handle_error(request, status, exc, message)  # which tells the log
        return _no_http()

    def drop(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()


def _no_http() -> web.Response:
    detail = "This is not a request of HTTP/1.1 as RFC 9112 has it, or a field of it is too long; the connection is closed."
    response = Problem(400, "bad-request", "Bad Request", detail).response()
    response.headers["Server"] = SERVER
    response.force_close()
    return response


class Ordinary(Connection):
    """A Connection where aiohttp may be old.

    3.8 reads ahead without a limit, so that a client that asks for ever and reads no answer fills the memory; and it takes
    requests of other versions of HTTP, without a Host and with two.
    """

    __slots__ = ("_early", "_held")

    def __init__(self, manager: web.Server, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._early, self._held = b"", False

    def data_received(self, data: bytes) -> None:
        """Parse what is answered soon; the rest waits here, and what comes after it with the kernel."""
        self._early += data
        self.go_on()

    def refusal(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a request that is none of HTTP/1.1 or 1.0 (RFC 9112, 2.3 and 3.2), which has been taken up here."""
        self.go_on()
        hosts = len(request.headers.getall("Host", ()))
        sound = hosts == 1 if request.version == HttpVersion11 else hosts < 2 and request.version == HttpVersion10
        return None if sound else _no_http()

    def go_on(self) -> None:
        """Where a request was taken up there is room for others."""
        while self._early and len(self._messages) < QUEUED and self.transport is not None:
            piece, self._early = self._early[:PARSED], self._early[PARSED:]
            try:
                super().data_received(piece)
            except ValueError as error:  # of yarl's, for a target that is no URL: newer parsers answer 400
                LOG.debug("a request that cannot be parsed: %s", error)
                self._early = b""
                self.drop()
        if self._early:
            self._held = True
            self.pause_reading()
        elif self._held:  # and not whenever there is room: a body that nobody reads has stopped reading as well
            self._held = False
            self.resume_reading()
