"""Turn, with real lanes on real sockets: what goes wrong with one answer is that connection's alone."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop
from aiohttp import web

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.access import Access
from farcore_server.catalogue import Catalogue
from farcore_server.grant import Grant
from farcore_server.inspection import Rules
from farcore_server.lane import Lane
from farcore_server.metrics import Metrics
from farcore_server.opened import Opened
from farcore_server.outlet import TURN
from farcore_server.turn import Turn
from tests.elfwriter import Dump, load

SIZE = 3 * TURN
PREFIX, SUFFIX = b"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=", b"\r\n\r\n"
BEFORE, AFTER = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes ", b"/9\r\nContent-Length: %d\r\nDate: %b\r\n\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "dumps").mkdir()
    return Dump([load(os.urandom(SIZE), paddr=0)]).write(tmp_path / "dumps" / "vmcore")


class Lanes:
    """Lanes that wait for requests, each with its client: a blocking socket. They end with the body of an ``async with``."""

    def __init__(self, metrics: Metrics) -> None:
        loop = asyncio.get_running_loop()
        self.turn, self.server = Turn(loop, metrics), web.Server(_unwanted)
        self.lanes: list[Lane] = []
        self.clients: list[socket.socket] = []

    async def connect(self, *grants: Grant) -> None:
        """One for each of the grants."""
        loop = asyncio.get_running_loop()
        for grant in grants:
            with closing(socket.create_server(("127.0.0.1", 0))) as listener:
                theirs = socket.create_connection(listener.getsockname(), timeout=20)
                ours, _ = listener.accept()
            _, lane = await loop.connect_accepted_socket(lambda: Lane(self.server, self.turn, loop=loop), ours)
            await asyncio.sleep(0.01)  # aiohttp's task has begun to wait for a request
            assert lane._waiter is not None
            lane.arm(grant)
            self.lanes.append(lane)
            self.clients.append(theirs)

    async def answers(self, length: int) -> list[bytes]:
        """What each is sent for the first ``length`` bytes, all asking in one turn of the loop."""
        for client in self.clients:
            client.sendall(PREFIX + b"0-%d" % (length - 1) + SUFFIX)
        return list(await asyncio.gather(*(asyncio.to_thread(_received, client, length) for client in self.clients)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*(lane.shutdown(1) for lane in self.lanes))
        for client in self.clients:
            client.close()


async def _unwanted(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=500)


def _received(client: socket.socket, length: int) -> bytes:
    """The body of an answer; nothing where the connection is ended instead."""
    received = b""
    try:
        while len(received.partition(b"\r\n\r\n")[2]) < length and (piece := client.recv(1 << 20)):
            received += piece
    except ConnectionResetError:
        return b""
    return received.partition(b"\r\n\r\n")[2]


def on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, 30))


async def granted(path: Path) -> Grant:
    """What a handler would have granted."""
    catalogue = Catalogue([str(path)], Rules(host("x86_64"), Policy("cross")))
    catalogue.scan()
    (dump_id,) = catalogue.dumps
    opened = await catalogue.open(dump_id)
    assert isinstance(opened, Opened)
    return Grant(PREFIX, SUFFIX, BEFORE, AFTER, opened, await opened.layout("vmcore"), "vmcore", Access(None), 0)


# Grants that no handler makes: an answer's head that cannot be made, and no layout to look into.
BROKEN = [{"after": b"%d"}, {"layout": None}]


@pytest.mark.parametrize("wrong", BROKEN)
def test_an_error_that_nobody_thought_of_ends_its_connection_and_no_others(
    path: Path, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    metrics, content = Metrics(), path.read_bytes()[:100]

    async def main() -> None:
        good = await granted(path)
        async with Lanes(metrics) as there:
            await there.connect(good, dataclasses.replace(good, **wrong), good)
            assert await there.answers(100) == [content, b"", content]

    on_uvloop(main())
    assert metrics.requests == {("vmcore", 206): 2}
    assert "nobody had thought of" in caplog.text


def test_more_than_a_turn_takes_is_answered_in_later_ones(path: Path) -> None:
    length = 1 << 20
    count = TURN // length + 4
    metrics, content = Metrics(), path.read_bytes()[:length]

    async def main() -> None:
        good, alike = await granted(path), await granted(path)
        async with Lanes(metrics) as there:
            await there.connect(*(alike if number % 3 == 0 else good for number in range(count)))
            for _ in range(3):
                assert await there.answers(length) == [content] * count

    on_uvloop(main())
    assert metrics.requests == {("vmcore", 206): 3 * count}
