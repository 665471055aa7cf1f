"""A relay in front of a live server, on a port that stays: cut, stalled, closed and opened again as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit


class Relay:
    """``url`` for clients; ``to`` is the server's. Every method returns when it is done."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.cut_after: int | None = None  # bytes of the server's, over one connection
        self.connections = 0
        self.forwarded = 0
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._call(self._open())

    def down(self) -> None:
        """Listen no more, and cut what there is."""
        self._call(self._down())

    def stall(self, *, flowing: bool = False) -> None:
        """Hold back what the server says; take and forward it again with ``flowing``."""
        self._loop.call_soon_threadsafe(self._flowing.set if flowing else self._flowing.clear)

    def close(self) -> None:
        """The end of it."""
        self._flowing.set()
        self.down()
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._one, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _down(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        target = urlsplit(self.to)
        try:
            behind, onward = await asyncio.open_connection(target.hostname, target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        try:
            ways = [asyncio.create_task(self._pump(reader, onward)), asyncio.create_task(self._answer(behind, writer))]
            _, other = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in other:
                way.cancel()
        finally:
            self._writers -= {writer, onward}
            writer.transport.abort()
            onward.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(1 << 16):
                sink.write(piece)
                await sink.drain()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        most = self.cut_after
        with suppress(OSError):
            while most != 0 and (piece := (await source.read(1 << 16))[:most]):
                await self._flowing.wait()
                self.forwarded += len(piece)
                sink.write(piece)
                await sink.drain()
                most = None if most is None else most - len(piece)
            sink.close()
            await sink.wait_closed()


@contextmanager
def relay(to: str) -> Iterator[Relay]:
    """A relay to the server at this URL, for the time of the body."""
    running = Relay(to)
    try:
        yield running
    finally:
        running.close()
