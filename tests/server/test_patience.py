"""A connection that has not sent the head of its first request in time is closed; one that has is not."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from farcore_server.connection import Connection, Ordinary

PATIENCE = 0.2


async def _hello(request: web.BaseRequest) -> web.Response:
    return web.Response(text="hello")


@pytest.mark.parametrize("kind", [Connection, Ordinary])
@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_connection_whose_first_head_never_ends_is_closed(said: bytes, kind: type[Connection]) -> None:
    loop = asyncio.get_running_loop()
    front = web.Server(_hello)
    listener = await loop.create_server(lambda: kind(front, patience=PATIENCE, loop=loop), "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        other, asker = await asyncio.open_connection("127.0.0.1", port)
        asker.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await other.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
        writer.write(said)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 10 * PATIENCE)
        asker.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await other.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
        for each in (writer, asker):
            each.close()
    await front.shutdown(0.1)
