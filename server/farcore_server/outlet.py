"""Outlet: a connection's socket, written to directly, past the transport and without a copy.

Only under uvloop and without TLS, where the transport leaves the socket alone while it has nothing of its own to send;
elsewhere there is a Passage.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from os import writev
from typing import Final

from farcore.errors import FarcoreError, FaultError, SourceChangedError
from farcore_server.body import PIECE
from farcore_server.mapping import MappedSource
from farcore_server.opened import Opened
from farcore_server.pipe import Pipe
from farcore_server.residency import Residency

# Answers send no more than this in a turn of the loop, 3 ms of a core: a MiB each for sixteen who ask at once, as with nginx.
# So do all streams together while nobody asks for anything: what a piece costs besides sendfile, 30 us of Python, counts less
# the larger it is. Else each has PIECE, as with nginx.
TURN: Final = 16 << 20
# Seconds without a request after which nobody is kept waiting: a few turns of the loop, and longer than those who read single
# pages over a short line take until they ask again.
QUIET: Final = 0.03
# sendfile(2) from the middle of a page has 17 pages in every 16 buffers of its pipe.
PAGE: Final = 4096
# Up to here an answer is one system call, from the map; above, sendfile costs a second one and copies nothing.
MAPPED: Final = 32 << 10
# An answer longer than this is sent corked: between two pieces the kernel sends whole packets only, as with nginx's tcp_nopush.
# Without, every ACK that comes during a sendfile lets go of what is there, and a third of the packets are short.
CORKED: Final = 64 << 10
# And one than this leaves through a Pipe, which costs a system call more than sendfile and then less for each page.
PIPED: Final = 128 << 10
# What the kernel may hold unsent of one connection; the rest of a slow reader's megabytes stays in the file.
UNSENT: Final = 512 << 10
# Who takes SOON bytes within EAGER seconds reads as fast as we send, and has AMPLE until the stream's end, all that Linux gives
# to a socket: under BBR, which lets bytes go as the line would take them, we should wake for every 256 KiB. So has an answer
# of the lane, PIECE at most, which else would need a task for its rest.
SOON: Final = 8 << 20
EAGER: Final = 0.5
AMPLE: Final = 4 << 20


class Sharing:
    """What the streams of a process share: the loop's turns, with each other and with those who ask."""

    __slots__ = ("_asked", "_before", "_by", "pipe", "streams")

    def __init__(self) -> None:
        # Those that push() is at work on.
        self.streams: set[Outlet] = set()
        # When, by the loop's clock, anybody asked last; which connection that was (None: several); and when another did.
        self._asked = self._before = float("-inf")
        self._by: object = None
        self.pipe = Pipe()

    def heard(self, now: float, by: object) -> None:
        """Somebody has asked for something."""
        if by is None or by is not self._by:
            self._before, self._by = self._asked, by
        self._asked = now

    def most(self, now: float, stream: Outlet) -> int:
        """How much this one may send in this turn. Its own request does not count: nobody waits behind it."""
        asked = self._before if self._by is stream else self._asked
        return PIECE if now - asked < QUIET else max(PIECE, TURN // len(self.streams))


class Outlet:
    """The socket of one connection. Whoever uses it has seen to it that the transport's own buffer is empty."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, sharing: Sharing) -> None:
        self._socket, self._loop, self._sharing = sock, loop, sharing
        self._fd = sock.fileno()
        # A duplicate, made when it is first needed.
        self._watched = -1
        self._waiter: asyncio.Future[None] | None = None
        # What push() still has to send.
        self._opened: Opened | None = None
        self._offset = self._left = 0
        # When it began, and with how much left it is told whether its reader is eager.
        self._begun, self._trial = 0.0, -1
        self._corked = False
        self._held = 0
        self._hold(UNSENT)

    @classmethod
    def of(cls, transport: asyncio.BaseTransport, loop: asyncio.AbstractEventLoop, sharing: Sharing) -> Outlet | None:
        """The transport's outlet; None where its bytes must go through it (asyncio's own loop, TLS)."""
        if type(loop).__module__.partition(".")[0] != "uvloop" or transport.get_extra_info("ssl_object") is not None:
            return None
        inner = transport.get_extra_info("socket")
        if inner is None or inner.type != socket.SOCK_STREAM:
            return None
        return cls(socket.socket(inner.family, inner.type, inner.proto, fileno=inner.fileno()), loop, sharing)

    def close(self) -> None:
        """Let go of the socket, which is the transport's to close; whoever waits is told that the connection is lost."""
        # Unwatched before the descriptor goes: libuv aborts the process over one that vanished while it was watched.
        self._settle(ConnectionResetError("the connection was lost"))
        if self._watched >= 0:
            os.close(self._watched)
        self._socket.detach()
        self._fd = self._watched = -1

    def give(self, head: bytes, source: MappedSource, offset: int, length: int) -> int:
        """How many bytes of a whole answer the kernel took at once; the rest is for push(). Errors as sendfile()."""
        whole = source.whole
        if length > MAPPED or whole is None:
            if length > CORKED:
                self._cork(True)
            if length > UNSENT:
                self._hold(AMPLE)
            sent = self.send(head, socket.MSG_MORE)
            if sent == len(head):
                sent += self.sendfile(source.fd, offset, length)
            if sent == len(head) + length:
                self._cork(False)
            return sent
        try:
            return writev(self._fd, (head, whole[offset : offset + length]))
        except OSError as error:
            return self._none(error)

    def send(self, content: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """How many bytes the kernel took at once."""
        try:
            return self._socket.send(content, flags)
        except OSError as error:
            return self._none(error)

    def sendfile(self, fd: int, offset: int, length: int) -> int:
        """How many bytes of the file the kernel took at once.

        SourceChangedError where the file has none there, FaultError where its disk fails, ConnectionError without a client.
        """
        if self._fd < 0:
            raise ConnectionResetError("the connection was lost")
        move = self._sharing.pipe.move if length > PIPED else _sendfile
        try:
            sent = move(fd, offset, length, self._fd)
        except OSError as error:
            try:
                return self._none(error)
            except ConnectionError:
                raise
            except OSError:
                raise FaultError(address=offset, length=length, space="stored", kind="unreadable") from error
        if sent == 0:
            raise SourceChangedError(f"the file ends before byte {offset:,}")
        return sent

    def _none(self, error: OSError) -> int:
        """0 where the kernel took nothing for now, else ``error``: ConnectionError where it is about the connection.

        A client that has vanished is ETIMEDOUT or EHOSTUNREACH, which a disk can be as well; but a socket that has ended has no
        peer.
        """
        if isinstance(error, BlockingIOError):
            return 0
        if isinstance(error, ConnectionError):
            raise error
        try:
            self._socket.getpeername()
        except OSError:
            raise ConnectionResetError("the connection was lost") from error
        raise error

    async def send_all(self, content: bytes | bytearray | memoryview) -> None:
        """Send it all, waiting as long as it takes."""
        rest = memoryview(content)
        while True:
            rest = rest[self.send(rest) :]
            if not rest:
                return
            await self._watch(self._settle)

    async def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send them all, one after the other, in one system call if the socket takes them."""
        try:
            sent = writev(self._fd, parts)
        except OSError as error:
            sent = self._none(error)
        for part in parts:
            if sent < len(part):
                await self.send_all(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    async def push(self, opened: Opened, offset: int, length: int) -> None:
        """Send bytes of the dump's file, a share of TURN in each turn of the loop, cold ones brought in by a thread first."""
        self._opened, self._offset, self._left = opened, offset, length
        self._begun, self._trial = self._loop.time(), length - SOON
        self._sharing.streams.add(self)
        if length > PIECE:
            self._hold(UNSENT)  # what the lane answered before may have left it at AMPLE
        self._cork(True)
        try:
            while self._left:
                await opened.residency.bring(self._offset, min(self._left, PIECE))
                await self._watch(self._pump)
        finally:
            self._opened = None
            self._sharing.streams.discard(self)
            self._hold(UNSENT)
            self._cork(False)

    def _pump(self) -> None:
        """A piece, in each turn of the loop in which the socket takes some; a coroutine would cost as much as the piece."""
        opened = self._opened
        piece = 0 if opened is None else self._piece(opened.residency)
        if opened is None or not piece:
            self._settle()
            return
        try:
            opened.demand_unchanged()
            sent = self.sendfile(opened.source.fd, self._offset, piece)
        except (FarcoreError, OSError) as error:
            if isinstance(error, FaultError):
                opened.source.fails(self._offset)
            self._settle(error)
            return
        self._offset += sent
        self._left -= sent
        if not self._left:
            self._settle()
        elif self._left <= self._trial:
            self._trial = -1
            if self._loop.time() - self._begun < EAGER:
                self._hold(AMPLE)

    def _cork(self, corked: bool) -> None:
        """Have the kernel wait for whole packets, or no longer."""
        if self._corked != corked and self._fd >= 0:
            self._corked = corked
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, corked)

    def _hold(self, most: int) -> None:
        """Have the kernel hold so much unsent, about."""
        if self._held != most and self._fd >= 0:
            self._held = most
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, most)

    def _piece(self, residency: Residency) -> int:
        """How much is sent in this turn: this stream's share up to a page's end, or PIECE; 0 of what is not in memory."""
        for most in (self._sharing.most(self._loop.time(), self), PIECE):
            piece = min(self._left, most - self._offset % PAGE)
            if residency.ready(self._offset, piece):
                return piece
        return 0

    async def _watch(self, writable: Callable[[], None]) -> None:
        """Call ``writable`` in each turn in which the socket takes bytes, until it settles."""
        if self._fd < 0:
            raise ConnectionResetError("the connection was lost")
        if self._watched < 0:
            # uvloop watches no descriptor that is a transport's.
            self._watched = os.dup(self._fd)
        self._waiter = self._loop.create_future()
        self._loop.add_writer(self._watched, writable)
        try:
            await self._waiter
        finally:
            self._unwatch()

    def _settle(self, error: Exception | None = None) -> None:
        self._unwatch()
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._loop.remove_writer(self._watched)


def _sendfile(fd: int, offset: int, length: int, sock: int) -> int:
    return os.sendfile(sock, fd, offset, length)
