"""Worker: one process that serves. It shares the listening socket and the rows of the metrics with others, and nothing else.

Catalogue, tokens and grants each worker derives from the files themselves, so there is nothing to keep in step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from farcore.errors import FarcoreError
from farcore_server import systemd
from farcore_server.acceptor import Acceptor
from farcore_server.access import Access
from farcore_server.app import make_app
from farcore_server.catalogue import Catalogue
from farcore_server.connection import Ordinary
from farcore_server.indexes import Indexes
from farcore_server.inspection import Rules
from farcore_server.lane import Lane, usable
from farcore_server.metrics import Metrics
from farcore_server.settings import Settings
from farcore_server.state import State, directory_of
from farcore_server.supervisor import SIGNALS
from farcore_server.tls import ssl_context
from farcore_server.tokens import TokenFile
from farcore_server.turn import Turn

LOG: Final = logging.getLogger(__name__)

# An idle connection is kept longer than a reverse proxy keeps its own (nginx: 60 s), so that the proxy closes first.
KEEPALIVE: Final = 75.0
# Turns of the loop from an accepted socket to a connection that waits for a request: three, and some to spare.
SETTLES: Final = 10


@dataclass(frozen=True, slots=True)
class Serving:
    """What one reading of the settings made: what is served, to whom, by which application."""

    settings: Settings
    catalogue: Catalogue
    access: Access
    application: web.Server
    watch: asyncio.Task[None]

    @classmethod
    async def of(cls, settings: Settings, counts: Metrics) -> Self:
        """Ready to serve: the directories have been searched."""
        host, policy = settings.arch_rules()
        state = State(directory_of(os.environ))
        catalogue = Catalogue(settings.paths, Rules(host, policy, settings.map_limit, Indexes(state)), state)
        access = Access(TokenFile(settings.token_file) if settings.token_file else None, settings.own_hosts)
        await asyncio.to_thread(catalogue.scan)
        runner = web.AppRunner(make_app(catalogue, access, counts))
        await runner.setup()
        assert runner.server is not None
        return cls(settings, catalogue, access, runner.server, asyncio.create_task(catalogue.watch(settings.rescan)))

    def end(self) -> None:
        """Search no more, and let no connection repeat what it was granted here."""
        self.watch.cancel()
        self.access.end()


class Front(web.Server):
    """Has the connections, and hands every request to what the newest settings made: a reload closes none of them."""

    def __init__(self, serving: Serving, counts: Metrics) -> None:
        # Nothing here takes a compressed body, and nobody should be able to make us inflate one.
        super().__init__(
            self._answer,
            request_factory=self._request,
            access_log=None,
            keepalive_timeout=KEEPALIVE,
            auto_decompress=False,
        )
        self.serving, self._counts = serving, counts

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count it."""
        super().connection_made(handler, transport)
        self._counts.connections += 1

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Count it no more."""
        super().connection_lost(handler, exc)
        self._counts.connections -= 1

    def protocols(self) -> Callable[[], asyncio.Protocol]:
        """What makes a connection's protocol: the lane where it can be relied on, else one that stays within aiohttp."""
        # The arguments that Server itself would give to its RequestHandlers.
        if not usable():
            return lambda: Ordinary(self, loop=self._loop, **self._kwargs)
        turn = Turn(self._loop, self._counts)
        return lambda: Lane(self, turn, loop=self._loop, **self._kwargs)

    async def drain(self, seconds: float) -> None:
        """Read no more requests, and return when those under way are answered or the time is over."""
        # Who connected just now begins to wait for a request, and so can be told not to, a few turns of the loop later.
        for _ in range(SETTLES):
            for connection in self.connections:
                connection.close()
            await asyncio.sleep(0)
        # Of RequestHandler's own limits there are two in a row, and 0 is none at all.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.shutdown(seconds)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Ordinary) and (refusal := request.protocol.refusal(request)) is not None:
            return refusal
        return await self.serving.application.request_handler(request)

    def _request(self, *arguments: Any) -> web.BaseRequest:
        return self.serving.application.request_factory(*arguments)


class Worker:
    """Serves on ``listener`` by ``settings``; from SIGHUP on by those that ``read`` returns, unless that is a SettingsError."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], listener: socket.socket, counts: Metrics) -> None:
        self._settings, self._read, self._listener, self._counts = settings, read, listener, counts
        self._stop, self._reload = asyncio.Event(), asyncio.Event()

    def run(self, life: int) -> None:
        """Until SIGTERM, or until ``life`` can be read; a second SIGTERM ends the process as it always does."""
        try:
            import uvloop
        except ImportError:
            loop = asyncio.new_event_loop()
        else:
            # About twice as fast as asyncio's own, and what lets the lane write to sockets.
            loop = uvloop.new_event_loop()
        # Not asyncio.run(): that would wait for threads, and a search of directories is long, or hangs with its disk.
        loop.run_until_complete(self._run(life))
        loop.close()

    async def _run(self, life: int) -> None:
        self._listen_to_signals(life)
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(Serving.of(self._settings, self._counts))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await self._serve(starting.result())
        # Streams whose time is over, for the most part; a connection that is cut is how their clients learn of it.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=1)

    def _listen_to_signals(self, life: int) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_signal_handler(signal.SIGTERM)
            self._stop.set()

        def orphaned() -> None:
            loop.remove_reader(life)
            LOG.error("the supervisor is gone: worker %d stops", os.getpid())
            self._stop.set()

        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        # From a terminal it comes to all processes; what becomes of it is the supervisor's to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.add_reader(life, orphaned)

    async def _serve(self, serving: Serving) -> None:
        front = Front(serving, self._counts)
        acceptor = Acceptor(self._listener, front.protocols(), ssl_context(serving.settings), self._counts)
        self._counts.ready(*_count(serving.catalogue))
        tasks = [asyncio.create_task(self._reloading(front, acceptor)), asyncio.create_task(_beat())]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        self._counts.retire()
        acceptor.close()
        front.serving.end()
        await front.drain(front.serving.settings.drain)

    async def _reloading(self, front: Front, acceptor: Acceptor) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            try:
                settings = self._read()
                context = ssl_context(settings)
                serving = await Serving.of(settings, self._counts)
            except FarcoreError as error:
                LOG.error("worker %d keeps the settings it has: %s", os.getpid(), error)
                continue
            logging.getLogger().setLevel(settings.log_level.upper())
            before, front.serving, acceptor.context = front.serving, serving, context
            before.end()


async def _beat() -> None:
    """Tell systemd's watchdog that this loop turns, if it wants to know."""
    every = systemd.watchdog()
    while every:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(every)


def _count(catalogue: Catalogue) -> tuple[int, int]:
    """How many dumps are served, and how many are refused."""
    refused = sum(dump.state == "refused" for dump in catalogue.dumps.values())
    return len(catalogue.dumps) - refused, refused
