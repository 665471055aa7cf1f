"""The hot lane: a connection's protocol that answers a repeated range request itself.

aiohttp decides, the lane repeats: a handler that has answered a plain single-range GET arms its connection with a Grant, and
a later chunk of bytes that is the same request but for the range's digits is answered here, at a fifth of the cost.
Everything else goes to aiohttp, in order. The lane has no HTTP parser; what it must know is whether a chunk came while
nothing else was under way: only then may it be answered here, and only such a chunk can become a grant's pattern, so that
no pipelined or split request inherits the permission of another.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from aiohttp import web

from farcore.errors import FarcoreError
from farcore_server.connection import Connection
from farcore_server.grant import Grant
from farcore_server.outlet import Outlet
from farcore_server.passage import Passage
from farcore_server.turn import Turn

# It leans on RequestHandler's private state: with another aiohttp every request goes the ordinary way.
TESTED: Final = ("3.14",)

END: Final = b"\r\n\r\n"


def usable() -> bool:
    """Whether this aiohttp is one that the lane was tested with."""
    return aiohttp.__version__.rpartition(".")[0] in TESTED


class Lane(Connection):
    """A Connection that may hold one Grant."""

    __slots__ = (
        "_clean",
        "_ended",
        "_grant",
        "_pattern",
        "_plain",
        "_quiet",
        "_sender",
        "_turn",
        "answered",
        "held",
        "late",
        "outlet",
    )

    def __init__(self, manager: web.Server, turn: Turn, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._turn = turn
        self._grant: Grant | None = None
        # The chunk under way, if it is one whole request that came while nothing else was.
        self._pattern: bytes | None = None
        # Whether each chunk so far was one whole request: after any other, aiohttp's parser may hold the start of one.
        self._clean = True
        # Whether the request under way at aiohttp has armed us, so that it has no body.
        self._plain = False
        # Whether that request has ended, and aiohttp has not come back for the next one.
        self._ended = False
        # Whether an answer of ours is in the turn, or partly sent; what came too early waits until it is out.
        self.held = False
        self.late: list[bytes] = []
        # When the turn had our last answer, by the loop's clock.
        self.answered = 0.0
        self._quiet = False
        self._sender: asyncio.Task[None] | None = None
        # None without a connection.
        self.outlet: Outlet | Passage | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take hold of the socket, where it may be written to directly."""
        super().connection_made(transport)
        if self.transport is not None:
            self.outlet = Outlet.of(transport, self._loop, self._turn.sharing) or Passage(self.transport, self.flushed)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what is being sent."""
        self._grant = None
        self.late.clear()
        if self._sender is not None:
            self._sender.cancel()
        if isinstance(self.outlet, Outlet):
            self.outlet.close()
        self.outlet = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Have the turn answer what the grant may cover, and leave the rest to aiohttp."""
        grant, waiter = self._grant, self._waiter
        # Where aiohttp waits for a request it has none, nor has it anything to send but what is with the transport.
        if grant is None or waiter is None or waiter.done() or self.held or self.late or self._paused:
            self._receive(data)
            return
        self.held = True
        asked = grant.asked
        if not asked:
            self._turn.add(grant)
        asked.append((self, data))

    def _receive(self, data: bytes) -> None:
        self._turn.sharing.heard(self._loop.time(), self.outlet)
        if self.held or self.late:
            self._wait(data)
            return
        waiter, grant = self._waiter, self._grant
        if grant is not None:
            # A quick client asks again before aiohttp has come back from its last answer: soon it will be idle.
            returning = waiter is None and not self._messages and (self._plain or self._ended)
            if returning and grant.alike(data):
                self._wait(data)
                if self._ended:
                    self._loop.call_soon(self._when_idle)
                return
        idle = waiter is not None and not waiter.done() and not self._messages
        self._pass_on(data, alone=self._clean and (idle or self._request_count == 0))

    def _wait(self, data: bytes) -> None:
        self.late.append(data)
        self._hush()

    def log_access(self, *arguments: Any) -> None:
        """What aiohttp does last with a request; then it waits for the next, and what is late is no longer early."""
        super().log_access(*arguments)
        self._plain, self._ended = False, self._plain
        if self.late:
            self._loop.call_soon(self._when_idle)

    def _when_idle(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self.go_on()
        elif self._task_handler is not None and not self._close and not self._force_close:
            self._loop.call_soon(self._when_idle)

    def _pass_on(self, data: bytes, *, alone: bool) -> None:
        before, self._plain, self._ended = self._request_count, False, False
        super().data_received(data)
        self._clean = self._clean and data.find(END) == len(data) - len(END) and self._request_count == before + 1
        self._pattern = data if alone and self._clean else None
        if not self._clean:
            self._grant = None

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """What is under way, a handler's answer or one of the lane's, has ``timeout`` seconds to end; then it is cut."""
        if busy := {task for task in (self._sender, self._task_handler) if task is not None}:
            await asyncio.wait(busy, timeout=timeout)
        # aiohttp itself would wait so long twice over, and for ever when told 0.
        await super().shutdown(0.01)

    async def flushed(self) -> Outlet | Passage:
        """The outlet, once the transport has nothing of its own to send; ConnectionResetError when there is no connection."""
        if self._paused:
            await self._drain_helper()
        if self.outlet is None or self.transport is None:
            raise ConnectionResetError("the connection was lost")
        return self.outlet

    @property
    def pattern(self) -> bytes | None:
        """The request under way as it came, if another may be measured by it."""
        return self._pattern if self.outlet is not None else None

    def arm(self, grant: Grant) -> None:
        """Repeat this from now on."""
        self._grant, self._plain = grant, True

    def go_on(self) -> None:
        """The answer is with the kernel: read again, beginning with what came meanwhile."""
        self.held = False
        if self._quiet and self.transport is not None:
            self._quiet = False
            self.transport.resume_reading()
        late, self.late = self.late, []
        for data in late:
            self.data_received(data)

    def decline(self, chunk: bytes, *, ended: bool) -> None:
        """Have aiohttp answer what was held: its grant has ``ended``, or is not for this."""
        if ended:
            self._grant = None
        if self.transport is not None:
            self._pass_on(chunk, alone=True)
        self.go_on()

    def finish(self, grant: Grant, head: bytes, offset: int, length: int) -> None:
        """Send, as the socket takes it, what is left of an answer."""
        if self.outlet is not None:
            self._hush()  # or who has asked and shuts its side down would be hung up on
            self._sender = self._loop.create_task(self._finish(self.outlet, grant, head, offset, length))

    async def _finish(self, outlet: Outlet | Passage, grant: Grant, head: bytes, offset: int, length: int) -> None:
        try:
            await outlet.send_all(head)
            await outlet.push(grant.opened, offset, length)
            grant.opened.demand_unchanged()
        except ConnectionError:
            self.drop()
        except (FarcoreError, OSError):
            self.cut()
        except BaseException:
            self.drop()  # a connection that waits for the rest of an answer would wait for ever
            raise
        else:
            self.answered = self._loop.time()
            self._sender = None
            self.go_on()
        finally:
            self._sender = None

    def _hush(self) -> None:
        if not self._quiet and self.transport is not None:
            self._quiet = True
            self.transport.pause_reading()

    def _process_keepalive(self) -> None:
        # aiohttp takes the connection for idle while an answer of ours is under way, and does not know when the last one left.
        used = self._loop.time() if self.held else self.answered
        self._next_keepalive_close_time = max(self._next_keepalive_close_time, used + self._keepalive_timeout)
        super()._process_keepalive()

    def cut(self) -> None:
        """End a connection whose client must not take what it was sent for whole."""
        self._turn.metrics.cut += 1
        self.drop()

    def drop(self) -> None:
        """End the connection at once, and what it was granted."""
        self._grant = None
        super().drop()
