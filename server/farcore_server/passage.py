"""Passage: what an Outlet is for where all bytes must go through the connection's transport: under TLS, and without uvloop.

Such a transport reads what it encrypts or keeps, in user space, where a mapped page that the file has lost is SIGBUS: it is
given copies, and no more than COPIED of them until the client has taken those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from farcore_server.body import COPIED
from farcore_server.mapping import MappedSource
from farcore_server.opened import Opened


class Passage:
    """The way through one connection's ``transport``; ``flushed`` returns when that has nothing left to send."""

    def __init__(self, transport: asyncio.Transport, flushed: Callable[[], Awaitable[object]]) -> None:
        self._transport, self._flushed = transport, flushed

    def give(self, head: bytes, source: MappedSource, offset: int, length: int) -> int:
        """How many bytes of a whole answer were handed over: its head, and COPIED. Errors as pread's, and ConnectionError."""
        taken = min(length, COPIED)
        self._write(b"".join((head, source.pread(offset, taken))))
        return len(head) + taken

    async def send_all(self, content: bytes | bytearray | memoryview) -> None:
        """Send it all, waiting as long as it takes."""
        rest = memoryview(content)
        while rest:
            await self._flushed()
            self._write(bytes(rest[:COPIED]))
            rest = rest[COPIED:]

    async def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send them all, one after the other."""
        for part in parts:
            await self.send_all(part)

    async def push(self, opened: Opened, offset: int, length: int) -> None:
        """Send bytes of the dump's file, COPIED in a turn of the loop: read, then the file is looked at, then they leave."""
        end = offset + length
        while offset < end:
            await asyncio.sleep(0)
            content = await opened.residency.read(offset, min(COPIED, end - offset))
            await self._flushed()
            opened.demand_unchanged()
            self._write(content)
            offset += len(content)

    def _write(self, content: bytes | bytearray | memoryview) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the connection was lost")
        self._transport.write(content)
