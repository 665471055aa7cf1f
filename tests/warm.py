"""A server in this process that tells which answers came from a handler, so that no test of the lane passes without it.

It has farcored's parts, in a thread with an event loop of its own. What a client was sent and no handler prepared, a lane
has answered.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from aiohttp import web

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.access import Access
from farcore_server.app import make_app
from farcore_server.catalogue import Catalogue
from farcore_server.inspection import Rules
from farcore_server.lane import Lane
from farcore_server.metrics import Metrics
from farcore_server.tokens import TokenFile
from farcore_server.turn import Turn

STARTS_WITHIN = 30.0


@dataclass(slots=True)
class Warm:
    """Where it listens, its counts, and how many answers its handlers prepared: with status 206, and in all."""

    url: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    partial: int = 0
    prepared: int = 0

    async def count(self, request: web.Request, response: web.StreamResponse) -> None:
        """A handler is about to answer."""
        self.prepared += 1
        self.partial += response.status == 206


@contextmanager
def warmed(
    *paths: str | Path,
    token_file: Path | None = None,
    keepalive: float = 75.0,
    tls: ssl.SSLContext | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> Iterator[Warm]:
    """Serves ``paths`` for the time of the body; an idle connection is kept for ``keepalive`` seconds."""
    warm = Warm()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        catalogue = Catalogue([str(path) for path in paths], Rules(host("x86_64"), Policy("cross")))
        await asyncio.to_thread(catalogue.scan)
        app = make_app(catalogue, Access(TokenFile(token_file) if token_file else None), warm.metrics)
        app.on_response_prepare.append(warm.count)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=keepalive)
        await runner.setup()
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None
        turn = Turn(loop, warm.metrics)
        accepting = await loop.create_server(lambda: Lane(server, turn, loop=loop, **server._kwargs), "127.0.0.1", 0, ssl=tls)
        warm.url = f"http{'s' * bool(tls)}://127.0.0.1:{accepting.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        accepting.close()
        await runner.cleanup()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),), name="warm")
        thread.start()
        try:
            assert ready.wait(STARTS_WITHIN), "the server did not start"
            yield warm
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            thread.join()
