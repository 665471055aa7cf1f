"""Connection: aiohttp's protocol at the moments that aiohttp did not think of."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from aiohttp import web

from farcore_server.connection import Connection, Ordinary


class Transport(asyncio.Transport):
    """Takes what it is given."""

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("kind", [Connection, Ordinary])
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_a_request_that_comes_in_one_turn_with_the_end_of_its_connection_is_no_error(
    kind: type[Connection], error: Exception | None
) -> None:
    async def unwanted(request: web.BaseRequest) -> web.Response:
        raise AssertionError("nobody waits for it")

    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    front = web.Server(unwanted)
    connection = kind(front, loop=loop)
    connection.connection_made(Transport())
    task = connection._task_handler
    assert task is not None
    await asyncio.sleep(0.01)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection.connection_lost(error)
    await asyncio.wait([task], timeout=5)
    assert task.done()
    del task
    gc.collect()
    await asyncio.sleep(0)
    assert not complaints
    await front.shutdown(0.1)
