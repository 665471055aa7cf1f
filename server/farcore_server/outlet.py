"""Outlet: a connection's socket, written to directly, past the transport and without a copy.

Only under uvloop and without TLS, where the transport leaves the socket alone while it has nothing of its own to send.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from farcore.errors import FaultError, SourceChangedError
from farcore_server.body import PIECE
from farcore_server.opened import Opened

# What the kernel may hold unsent of one connection; the rest of a slow reader's megabytes stays in the file.
UNSENT: Final = 512 << 10


class Outlet:
    """The socket of one connection. Whoever uses it has seen to it that the transport's own buffer is empty."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop = sock, loop
        self._fd = sock.fileno()
        # uvloop watches no descriptor that is a transport's: a duplicate, made when it is first needed.
        self._watched = -1
        self._waiter: asyncio.Future[None] | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    @classmethod
    def of(cls, transport: asyncio.BaseTransport, loop: asyncio.AbstractEventLoop) -> Outlet | None:
        """The transport's outlet; None where its bytes must go through it (asyncio's own loop, TLS)."""
        if type(loop).__module__.partition(".")[0] != "uvloop" or transport.get_extra_info("ssl_object") is not None:
            return None
        inner = transport.get_extra_info("socket")
        if inner is None or inner.type != socket.SOCK_STREAM:
            return None
        return cls(socket.socket(inner.family, inner.type, inner.proto, fileno=inner.fileno()), loop)

    def close(self) -> None:
        """Let go of the socket, which is the transport's to close; whoever waits is told that the connection is lost."""
        if self._watched >= 0:
            # Before the descriptor goes: libuv aborts the process over one that vanished while it was watched.
            self._loop.remove_writer(self._watched)
            os.close(self._watched)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError("the connection was lost"))
        self._socket.detach()
        self._fd = self._watched = -1

    def write(self, head: bytes, content: memoryview) -> int:
        """How many bytes of both the kernel took at once."""
        try:
            return os.writev(self._fd, (head, content))
        except BlockingIOError:
            return 0

    def send(self, content: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """How many bytes the kernel took at once."""
        try:
            return self._socket.send(content, flags)
        except BlockingIOError:
            return 0

    def sendfile(self, fd: int, offset: int, length: int) -> int:
        """How many bytes of the file the kernel took at once.

        SourceChangedError where the file has none there, FaultError where its disk fails, ConnectionError without a client.
        """
        if self._fd < 0:
            raise ConnectionResetError("the connection was lost")
        try:
            sent = os.sendfile(self._fd, fd, offset, length)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise
        except OSError as error:
            raise FaultError(address=offset, length=length, space="stored", kind="unreadable") from error
        if sent == 0:
            raise SourceChangedError(f"the file ends before byte {offset:,}")
        return sent

    async def send_all(self, content: bytes | bytearray | memoryview) -> None:
        """Send it all, waiting as long as it takes."""
        rest = memoryview(content)
        while rest:
            sent = self.send(rest)
            rest = rest[sent:]
            if rest:
                await self._writable()

    async def push(self, opened: Opened, offset: int, length: int) -> None:
        """Send bytes of the dump's file, at most PIECE a turn of the loop, cold ones brought in by a thread first."""
        while length:
            piece = min(length, PIECE)
            await opened.residency.bring(offset, piece)
            opened.demand_unchanged()
            sent = self.sendfile(opened.source.fd, offset, piece)
            offset += sent
            length -= sent
            await (asyncio.sleep(0) if sent == piece else self._writable())

    async def _writable(self) -> None:
        if self._fd < 0:
            raise ConnectionResetError("the connection was lost")
        if self._watched < 0:
            self._watched = os.dup(self._fd)
        self._waiter = self._loop.create_future()
        self._loop.add_writer(self._watched, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            if self._watched >= 0:
                self._loop.remove_writer(self._watched)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
