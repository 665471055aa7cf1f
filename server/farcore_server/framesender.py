"""FrameSender: the frames of an answer on their way to the client, in few packets and system calls."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from farcore_server.lane import Lane

# Written at once: aiohttp copies what it writes, and keeps the copy of a reader who stalls.
WRITE: Final = 64 << 10


class FrameSender:
    """What is small waits for what comes next: a new connection has ten packets in its first round trip.

    What is large leaves past the transport without a copy, where that can be. ConnectionError when the client is gone.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request, self._response = request, response
        self._waiting = b""
        lane = request.protocol
        chunked = response.headers.get("Transfer-Encoding") == "chunked"
        self._lane = lane if chunked and isinstance(lane, Lane) and lane.outlet is not None else None
        self._begun = False

    async def send(self, head: bytes, stored: bytes | memoryview = b"") -> None:
        """A frame's two parts."""
        before = self._waiting + head
        if len(before) + len(stored) <= WRITE:
            self._waiting = before + stored
            return
        self._waiting = b""
        if self._lane is None:
            await self._response.write(before)
            for at in range(0, len(stored), WRITE):
                await self._response.write(memoryview(stored)[at : at + WRITE])
            return
        if not self._begun:
            self._begun = True
            await self._response.write(b"")  # the response's head, which aiohttp keeps for the first bytes of the body
        await self._past(self._lane, (b"%x\r\n" % (len(before) + len(stored)) + before, stored, b"\r\n"))

    async def _past(self, lane: Lane, chunk: tuple[bytes, bytes | memoryview, bytes]) -> None:
        try:
            await (await lane.flushed()).send_parts(chunk)
        except ConnectionError:
            # The socket has learnt before its transport that the client is gone.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise
        self._request.writer.output_size += sum(map(len, chunk))

    async def end(self, closing: bytes) -> None:
        """What is left, and the end of the response."""
        await self._response.write_eof(self._waiting + closing)
