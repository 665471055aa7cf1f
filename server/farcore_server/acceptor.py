"""Acceptor: takes connections from the listening socket that all workers share, one at a time, the least busy worker first.

All workers wake up for a connection and the first to accept has it: left to themselves, a burst of 16 connections ends up
with one of two workers. So a worker that has more connections than another leaves the next one alone for a moment.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from farcore_server.metrics import Metrics

LOG: Final = logging.getLogger(__name__)

# How long, in seconds, the others have to take a connection: a turn of a busy loop. Then it is taken by whoever is there.
ASIDE: Final = 0.001
# How long nothing is accepted when descriptors or memory have run out: connections wait in the kernel's queue.
FULL_PAUSE: Final = 1.0
_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Hands each accepted connection to a new protocol; owns ``listener``. A new ``context`` is for new connections."""

    def __init__(
        self,
        listener: socket.socket,
        protocols: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        counts: Metrics,
    ) -> None:
        self._listener, self._protocols, self.context, self._counts = listener, protocols, context, counts
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop.add_reader(listener.fileno(), self._readable)

    def close(self) -> None:
        """Accept no more, nor finish what has not become a connection yet."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._connecting:
            task.cancel()

    def _readable(self) -> None:
        if self._counts.busier():
            self._step_aside(ASIDE)
        else:
            self._accept()

    def _step_aside(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._readable)
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            # Others are that another worker was quicker, and errors of the connection (accept(2)), which is gone then.
            if error.errno in _FULL:
                LOG.error("no connection can be accepted for now: %s", error.strerror)
                self._step_aside(FULL_PAUSE)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocols, connection, ssl=self.context)
        except OSError as error:
            # The client has gone, or speaks no TLS: its own affair.
            LOG.debug("a connection came to nothing: %s", error)
            connection.close()
