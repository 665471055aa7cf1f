"""Passage: what it hands to a transport, and when; the lane's tests have it under TLS and without uvloop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farcore.errors import SourceChangedError
from farcore_server.body import COPIED
from farcore_server.passage import Passage
from tests.elfwriter import Dump, load
from tests.server.test_outlet import opened

CONTENT = bytes(range(256)) * 4096


class Transport(asyncio.Transport):
    """Keeps what it is given, until the client takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []
        self.closing = False
        self._taken = asyncio.Event()

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._taken.clear()
        self.given.append(bytes(data))

    async def flushed(self) -> None:
        """Once it has nothing left."""
        await self._taken.wait()

    def take(self) -> None:
        """The client has all of it."""
        self._taken.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "dumps").mkdir()
    return Dump([load(CONTENT, paddr=0)]).write(tmp_path / "dumps" / "vmcore")


@pytest.fixture
def whole(path: Path) -> bytes:
    """The file as it was written."""
    return path.read_bytes()


@pytest.mark.parametrize("length", [1, COPIED, COPIED + 1, len(CONTENT)])
async def test_of_an_answer_it_hands_over_the_head_and_no_more_than_it_may_keep(path: Path, whole: bytes, length: int) -> None:
    transport = Transport()
    source = (await opened(path)).source
    taken = min(length, COPIED)
    assert Passage(transport, transport.flushed).give(b"head", source, 5, length) == 4 + taken
    assert transport.given == [b"head" + whole[5 : 5 + taken]]


async def test_what_is_longer_waits_until_the_client_has_taken_what_came_before(path: Path, whole: bytes) -> None:
    transport = Transport()
    dump = await opened(path)
    passage = Passage(transport, transport.flushed)
    for sending, content in (
        (passage.push(dump, 9, 3 * COPIED + 1), whole[9 : 9 + 3 * COPIED + 1]),
        (passage.send_all(whole[: 2 * COPIED]), whole[: 2 * COPIED]),
        (passage.send_parts((b"first", memoryview(whole)[: COPIED + 7])), b"first" + whole[: COPIED + 7]),
    ):
        transport.given.clear()
        transport.take()
        task = asyncio.create_task(sending)
        pieces = 0
        while not task.done():
            await asyncio.sleep(0.01)
            pieces += 1
            assert len(transport.given) == pieces
            assert len(transport.given[-1]) <= COPIED
            transport.take()
            await asyncio.sleep(0)
        assert b"".join(transport.given) == content
        await task


async def test_a_push_ends_when_its_file_changes_before_any_byte_of_the_new_version(path: Path, whole: bytes) -> None:
    transport = Transport()
    dump = await opened(path)
    transport.take()
    pushing = asyncio.create_task(Passage(transport, transport.flushed).push(dump, 0, len(whole)))
    await asyncio.sleep(0.05)
    with path.open("r+b") as file:
        file.seek(COPIED)
        file.write(bytes(COPIED))
    transport.take()
    with pytest.raises(SourceChangedError):
        await pushing
    assert transport.given == [whole[:COPIED]]


async def test_nothing_is_given_to_a_transport_that_is_closing(path: Path) -> None:
    transport = Transport()
    source = (await opened(path)).source
    transport.closing = True
    with pytest.raises(ConnectionResetError):
        Passage(transport, transport.flushed).give(b"head", source, 0, 1)
    assert not transport.given
