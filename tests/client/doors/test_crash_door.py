"""The door for crash as a client of it sees it, over a socket; dumps are those of tests/elfwriter.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from farcore.elf import Elf
from farcore.errors import SourceChangedError
from farcore.source import BytesSource, Source
from farcore.space import PhysicalSpace
from farcore_client.doors.crash.door import CrashDoor
from farcore_client.doors.crash.requests import MAX_REQUEST
from farcore_client.doors.listener import MAX_CLIENTS
from farcore_client.errors import ProtocolError, UnreachableError
from farcore_client.target import Target
from tests.elfwriter import Dump, load, note

PAGES = bytes(range(256)) * 32
DUMP = Dump([note(("CORE", 1, bytes(336))), load(PAGES, paddr=0x10000, vaddr=0xFFFF888000010000)])
WITHIN = 10.0  # seconds


class Troubled(Source):
    """The dump's bytes, or ``error`` while there is one."""

    def __init__(self) -> None:
        self.below = BytesSource(DUMP.tobytes())
        self.size = self.below.size
        self.error: Exception | None = None

    def pread(self, offset: int, length: int) -> memoryview:
        if self.error is not None:
            raise self.error
        return self.below.pread(offset, length)


def target(below: Source | None = None) -> Target:
    source = BytesSource(DUMP.tobytes())
    return Target.open(source, PhysicalSpace(below or source, Elf.open(source)))


@contextmanager
def opened(over: Target, complain: Callable[[str], object] = lambda sentence: None) -> Iterator[tuple[CrashDoor, int]]:
    door = CrashDoor(over, lambda cpu: None, complain)
    with door.listener.listening("127.0.0.1", 0) as port:
        yield door, port


def attached(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WITHIN)


def asked(client: socket.socket, request: bytes, length: int) -> bytes:
    """The first ``length`` bytes of the answer, fewer where the door hangs up."""
    client.sendall(request + b"\0")
    found = b""
    while len(found) < length and (piece := client.recv(length - len(found))):
        found += piece
    return found


def test_memory_is_read_by_both_kinds_of_address_and_holes_fail() -> None:
    with opened(target()) as (_, port), attached(port) as client:
        for descriptor, address in ((5, 0x10000 + 4), (6, 0xFFFF888000010000 + 4)):
            assert asked(client, b"READ_LIVE %d %x 16" % (descriptor, address), 29) == b"DONE 0000016\0" + PAGES[4:20]
        for hole in (b"5 0 8", b"5 11ffc 8", b"5 ffffffffffffffff 8", b"6 1000 8", b"6 ffff888000011ffc 8"):
            assert asked(client, b"READ_LIVE " + hole, 7) == b"FAIL 5\0"
        assert asked(client, b"EXIT", 99) == b"EXIT OK\0"


def test_two_crashes_at_once_do_not_wait_for_each_other() -> None:
    with opened(target()) as (_, port), attached(port) as one, attached(port) as other:
        one.sendall(b"READ_LIVE 5 10000 8192")  # and no end of it yet
        for _ in range(3):
            assert asked(other, b"READ_LIVE 5 10000 2", 15) == b"DONE 0000002\0\x00\x01"
        assert asked(one, b"", 13 + 8192)[13:] == PAGES


def test_one_that_reads_nothing_holds_up_nobody() -> None:
    with opened(target()) as (_, port), attached(port) as deaf, attached(port) as other:
        deaf.setblocking(False)
        try:
            while deaf.send(b"READ_LIVE 5 10000 8192\0" * 100):
                pass
        except BlockingIOError:
            pass
        assert asked(other, b"NIL", 6) == b"NIL P\0"


def test_what_is_no_crash_is_hung_up_on() -> None:
    said: list[str] = []
    with opened(target(), said.append) as (_, port), attached(port) as client:
        assert asked(client, b"GET / HTTP/1.1\r\n" + b"x" * MAX_REQUEST * 2, 1) == b""
    assert "no crash" in said[0]


def test_there_are_only_so_many_at_once() -> None:
    with opened(target()) as (_, port), ExitStack() as stack:
        clients = [stack.enter_context(attached(port)) for _ in range(MAX_CLIENTS)]
        assert all(asked(client, b"NIL", 6) for client in clients)
        with attached(port) as late:
            assert late.recv(1) == b""
        assert asked(clients[-1], b"NIL", 6) == b"NIL P\0"


def test_a_dump_that_changes_ends_every_session_with_a_sentence() -> None:
    said: list[str] = []
    below = Troubled()
    with opened(target(below), said.append) as (door, port), attached(port) as one, attached(port) as other:
        assert asked(one, b"READ_LIVE 5 10000 2", 15)
        assert asked(other, b"NIL", 6)
        below.error = SourceChangedError("the dump is another by now")
        assert asked(one, b"READ_LIVE 5 11000 2", 1) == b""
        assert other.recv(1) == b""
        assert door.listener.changed.wait(WITHIN)
        with attached(port) as late:
            assert late.recv(1) == b""
    assert said == ["the dump is another by now"]


def test_a_server_that_is_away_fails_reads_says_so_once_and_may_come_back() -> None:
    said: list[str] = []
    below = Troubled()
    with opened(target(below), said.append) as (_, port), attached(port) as client:
        below.error = UnreachableError("nobody is there")
        for _ in range(3):
            assert asked(client, b"READ_LIVE 5 10000 2", 7) == b"FAIL 5\0"
        below.error = None
        assert asked(client, b"READ_LIVE 5 10000 2", 15) == b"DONE 0000002\0\x00\x01"
    assert said == ["nobody is there"]


def test_the_door_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with opened(target()) as (_, port), attached(port) as client:
        assert asked(client, b"NIL", 6)
    for thread in threading.enumerate():
        if thread.name in ("farcore door", "farcore client"):
            thread.join(WITHIN)
    assert threading.active_count() <= before


def test_a_machine_that_no_crash_is_built_for_is_refused() -> None:
    source = BytesSource(Dump([load(PAGES, paddr=0)], machine=42).tobytes())
    with pytest.raises(ProtocolError, match="farcore mount"):
        CrashDoor(Target.open(source, PhysicalSpace(source, Elf.open(source))), lambda cpu: None, print)
