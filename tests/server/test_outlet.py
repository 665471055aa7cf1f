"""Outlet on real sockets of a uvloop server: every byte arrives, in order, however slowly it is read, or an error says why."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import socket
import struct
import termios
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from farcore.arch import Policy
from farcore.errors import FaultError, SourceChangedError
from farcore.hosts import host
from farcore_server.body import PIECE
from farcore_server.catalogue import Catalogue
from farcore_server.inspection import Rules
from farcore_server.opened import Opened
from farcore_server.outlet import AMPLE, CORKED, MAPPED, PIPED, QUIET, TURN, UNSENT, Outlet, Sharing
from tests.elfwriter import Dump, load
from tests.storage import disk

SIZE = 12 << 20
CLOSED = 7  # TCP_CLOSE of include/net/tcp_states.h, the first byte of TCP_INFO
CONTENT = os.urandom(SIZE)


def on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


class Held(asyncio.Protocol):
    """A server's end of one connection, with the outlet that it had from the first moment on."""

    def __init__(self, made: asyncio.Future[Held], sharing: Sharing | None = None) -> None:
        self.made, self.sharing = made, sharing or Sharing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.outlet = Outlet.of(transport, asyncio.get_running_loop(), self.sharing)
        self.made.set_result(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.outlet is not None:
            self.outlet.close()


@asynccontextmanager
async def connected(sharing: Sharing | None = None) -> AsyncIterator[tuple[Outlet, socket.socket, asyncio.BaseTransport]]:
    """An outlet, and the client's end: a blocking socket that takes little in advance."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Held] = loop.create_future()
    server = await loop.create_server(lambda: Held(made, sharing), "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    client.settimeout(20)
    held = await made
    assert held.outlet is not None
    try:
        yield held.outlet, client, held.transport
    finally:
        client.close()
        held.transport.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


def read(client: socket.socket, length: int, pause: float = 0.0) -> bytes:
    """That many bytes, at most 256 KiB at a time."""
    received = bytearray()
    while len(received) < length and (piece := client.recv(min(length - len(received), 256 << 10))):
        received += piece
        time.sleep(pause)
    return bytes(received)


async def opened(path: Path) -> Opened:
    catalogue = Catalogue([str(path)], Rules(host("x86_64"), Policy("cross")))
    catalogue.scan()
    (dump_id,) = catalogue.dumps
    found = await catalogue.open(dump_id)
    assert isinstance(found, Opened)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "dumps").mkdir()
    return Dump([load(CONTENT, paddr=0)]).write(tmp_path / "dumps" / "vmcore")


def test_without_uvloop_there_is_no_outlet() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Held] = loop.create_future()
        server = await loop.create_server(lambda: Held(made), "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        assert (await made).outlet is None
        client.close()
        server.close()
        (await made).transport.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_what_the_kernel_does_not_take_is_told_and_never_an_error(path: Path) -> None:
    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, client, _):
            assert outlet.give(b"head", dump.source, 1, 3) == 7
            assert outlet.send(b"more") == 4
            taken = 0
            while piece := outlet.send(memoryview(CONTENT)[taken:]):
                taken += piece
            assert 0 < taken < SIZE
            for length in (4096, MAPPED + 1):
                assert outlet.give(b"head", dump.source, 0, length) == 0
            assert outlet.sendfile(dump.source.fd, 0, 4096) == 0
            assert await asyncio.to_thread(read, client, 11 + taken) == b"headELFmore" + CONTENT[:taken]

    on_uvloop(main())


def test_a_slow_reader_gets_everything_in_order(path: Path) -> None:
    whole = path.read_bytes()

    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, client, _):
            reading = asyncio.create_task(asyncio.to_thread(read, client, SIZE + len(whole) - 1, 0.001))
            await outlet.send_all(CONTENT)
            await outlet.push(dump, 1, len(whole) - 1)
            assert await reading == CONTENT + whole[1:]

    on_uvloop(main())


def test_others_have_their_turn_after_every_piece(path: Path) -> None:
    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, client, _):
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(other())
            reading = asyncio.create_task(asyncio.to_thread(read, client, SIZE))
            await outlet.push(dump, 0, SIZE)
            assert turns >= SIZE // PIECE
            counting.cancel()
            await reading

    on_uvloop(main())


def test_streams_share_a_turn_and_have_a_piece_each_while_others_ask() -> None:
    before: set[Outlet] = set()

    async def main() -> None:
        for number in range(1, 20):
            async with connected() as (outlet, _, _):
                sharing = Sharing()
                sharing.streams |= {*before, outlet}
                before.add(outlet)
                assert PIECE <= sharing.most(0.0, outlet) <= TURN
                assert number * sharing.most(0.0, outlet) <= max(TURN, number * PIECE)
                sharing.heard(5.0, None)
                assert sharing.most(5.0 + 0.9 * QUIET, outlet) == PIECE
                assert sharing.most(5.0 + 1.1 * QUIET, outlet) >= PIECE
                # Its own request counts for the others alone.
                alone = sharing.most(9.0, outlet)
                sharing.heard(10.0, outlet)
                sharing.heard(10.001, outlet)
                for other in before - {outlet}:
                    assert sharing.most(10.01, other) == PIECE
                assert sharing.most(10.01, outlet) == alone
                sharing.heard(10.01, None)
                assert sharing.most(10.02, outlet) == PIECE

    on_uvloop(main())
    assert len(before) == 19


def test_the_kernel_holds_little_more_than_unsent_and_the_window_for_who_reads_nothing(path: Path) -> None:
    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, _client, transport):
            pushing = asyncio.create_task(outlet.push(dump, 0, SIZE))
            await asyncio.sleep(0.3)
            assert not pushing.done()
            # SIOCOUTQ counts what the client has not acknowledged; two pieces may go before the socket is full.
            raw = transport.get_extra_info("socket")

            (unacknowledged,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))
            assert 0 < unacknowledged <= UNSENT + 2 * PIECE
            pushing.cancel()

    on_uvloop(main())


@pytest.mark.parametrize(("pause", "most"), [(0.0, AMPLE), (0.02, UNSENT)])
def test_an_eager_reader_has_more_in_the_kernel_until_the_streams_end(path: Path, pause: float, most: int) -> None:
    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, client, transport):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20 if not pause else 64 << 10)
            raw, seen = transport.get_extra_info("socket"), set()
            for _ in range(1 if pause else 20):  # on a busy machine an eager reader may be kept from reading
                reading = asyncio.create_task(asyncio.to_thread(read, client, SIZE, pause))
                pushing = asyncio.create_task(outlet.push(dump, 0, SIZE))
                while not pushing.done():
                    seen.add(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
                    await asyncio.sleep(0)
                await reading
                if most in seen:
                    break
            assert seen == {UNSENT, most}
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT

    on_uvloop(main())


def test_a_long_answer_is_corked_and_has_ample_room_until_its_last_byte_is_with_the_kernel(path: Path) -> None:
    content = path.read_bytes()

    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, client, transport):
            ours = transport.get_extra_info("socket")

            def corked() -> int:
                return int(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))

            def unsent() -> int:
                return int(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))

            assert outlet.give(b"head", dump.source, 0, MAPPED + 1) == 4 + MAPPED + 1
            assert not corked()
            sent = outlet.give(b"head", dump.source, 0, SIZE)
            assert 0 < sent < SIZE
            assert corked()
            assert unsent() == AMPLE
            pushing = asyncio.create_task(outlet.push(dump, sent - 4, SIZE - (sent - 4)))
            await asyncio.sleep(0.01)
            assert corked()
            received = await asyncio.to_thread(read, client, 4 + MAPPED + 1 + 4 + SIZE)
            await pushing
            assert not corked()
            assert unsent() == UNSENT
            assert received[-SIZE:] == content[:SIZE]
            assert outlet.give(b"", dump.source, 0, CORKED + 1) == CORKED + 1
            assert not corked()
            # What was ample for an answer is not for a stream that follows.
            assert outlet.give(b"", dump.source, 0, UNSENT + 1) == UNSENT + 1
            assert unsent() == AMPLE
            pushing = asyncio.create_task(outlet.push(dump, 0, SIZE))
            await asyncio.sleep(0.01)
            assert unsent() == UNSENT
            await asyncio.to_thread(read, client, CORKED + 1 + UNSENT + 1 + SIZE)
            await pushing

    on_uvloop(main())


def test_a_file_that_ends_too_soon_or_fails_is_told_apart(path: Path) -> None:
    async def main() -> None:
        async with connected() as (outlet, _, _):
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                with pytest.raises(SourceChangedError):
                    outlet.sendfile(file.fileno(), size, 1)
                assert outlet.sendfile(file.fileno(), size - 10, 20) == 10
            with disk(path.parent) as shown, (shown.folder / "vmcore").open("rb") as file:
                shown.broken = range(8192, 12288)
                assert outlet.sendfile(file.fileno(), 0, 4096) == 4096
                with pytest.raises(FaultError) as caught:
                    outlet.sendfile(file.fileno(), 8192, 4096)
                assert (caught.value.address, caught.value.kind) == (8192, "unreadable")

    on_uvloop(main())


def test_a_push_ends_when_its_file_changes_before_any_byte_of_the_new_version(path: Path) -> None:
    whole = path.read_bytes()

    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, client, _):
            pushing = asyncio.create_task(outlet.push(dump, 0, SIZE))
            await asyncio.sleep(0.2)
            with path.open("r+b") as file:
                file.seek(SIZE - 4096)
                file.write(bytes(4096))
            received = asyncio.create_task(asyncio.to_thread(read, client, SIZE))
            with pytest.raises(SourceChangedError):
                await pushing
            outlet.close()
            client.shutdown(socket.SHUT_RD)
            assert whole.startswith(await received)

    on_uvloop(main())


async def descriptors() -> int:
    """How many this process has, those that the loop itself makes at its first connection among them."""
    async with connected():
        pass
    await asyncio.sleep(0.05)
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def reset(client: socket.socket, outlet: Outlet) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def close(client: socket.socket, outlet: Outlet) -> None:
    outlet.close()


@pytest.mark.parametrize("end", [reset, close])
def test_whoever_waits_is_told_that_the_connection_is_lost(
    path: Path, end: Callable[[socket.socket, Outlet], Awaitable[None]]
) -> None:
    async def main() -> None:
        dump = await opened(path)
        sharing, before = Sharing(), await descriptors()
        for way in ("push", "send_all"):
            async with connected(sharing) as (outlet, client, _):
                waiting = asyncio.create_task(outlet.push(dump, 0, SIZE) if way == "push" else outlet.send_all(CONTENT))
                await asyncio.sleep(0.1)
                assert not waiting.done()
                await end(client, outlet)
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(waiting, 10)
                with pytest.raises(OSError, match=r".") as caught:
                    outlet.sendfile(dump.source.fd, 0, 1)
                assert isinstance(caught.value, ConnectionError)
        assert await descriptors() == before

    on_uvloop(main())


async def send(outlet: Outlet, dump: Opened) -> None:
    outlet.send(b"head")


async def send_parts(outlet: Outlet, dump: Opened) -> None:
    await outlet.send_parts([b"one", b"two"])


async def give(outlet: Outlet, dump: Opened) -> None:
    outlet.give(b"head", dump.source, 0, MAPPED)


async def sendfile(outlet: Outlet, dump: Opened) -> None:
    outlet.sendfile(dump.source.fd, 0, PIPED)


async def splice(outlet: Outlet, dump: Opened) -> None:
    outlet.sendfile(dump.source.fd, 0, PIPED + 1)


def vanish(outlet: Outlet) -> None:
    """As if its client's packets were lost: the kernel gives it up. The loop must not hear of it first."""
    outlet._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 50)
    while outlet._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != CLOSED:
        time.sleep(0.02)


@pytest.mark.parametrize("way", [send, send_parts, give, sendfile, splice])
def test_a_client_that_has_vanished_is_no_fault_of_the_file(
    path: Path, way: Callable[[Outlet, Opened], Awaitable[None]]
) -> None:
    async def main() -> None:
        dump = await opened(path)
        async with connected() as (outlet, _client, _):
            while outlet.send(CONTENT):
                pass
            vanish(outlet)
            # ETIMEDOUT, as of a disk.
            with pytest.raises(ConnectionError):
                await way(outlet, dump)

    on_uvloop(main())


def test_a_wait_that_is_cancelled_leaves_nothing_watched(path: Path) -> None:
    async def main() -> None:
        dump = await opened(path)
        sharing, before = Sharing(), await descriptors()
        for _ in range(20):
            async with connected(sharing) as (outlet, _client, _):
                for _ in range(3):
                    waiting = asyncio.create_task(outlet.push(dump, 0, SIZE))
                    await asyncio.sleep(0.005)
                    waiting.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await waiting
        assert await descriptors() == before
        # A descriptor that is closed while it is watched makes libuv spin, or abort.
        cpu = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - cpu < 0.2

    on_uvloop(main())
