"""The door for gdb as a client of it sees it, over a socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from farcore.elf import Elf
from farcore.errors import SourceChangedError
from farcore.source import Source
from farcore.space import PhysicalSpace
from farcore_client.doors.gdb.door import GdbDoor
from farcore_client.doors.gdb.packets import MAX_PACKET, packet
from farcore_client.doors.listener import MAX_CLIENTS
from farcore_client.target import Target
from tests.client.doors.test_crash_door import PAGES, WITHIN, Troubled, attached

VADDR = 0xFFFF888000010000


def target(below: Source) -> Target:
    return Target.open(below, PhysicalSpace(below, Elf.open(below)))


@contextmanager
def opened(below: Source, complain: Callable[[str], object] = lambda sentence: None) -> Iterator[int]:
    with GdbDoor(target(below), complain).listener.listening("127.0.0.1", 0) as port:
        yield port


def asked(client: socket.socket, content: bytes) -> bytes:
    """The content of the answer; nothing where the door hangs up."""
    client.sendall(packet(content))
    return answered(client)


def answered(client: socket.socket) -> bytes:
    found = b""
    while b"#" not in found[:-2] and (piece := client.recv(1 << 16)):
        found += piece
    return found.lstrip(b"+")[1:-3]


def test_memory_is_read_however_the_bytes_of_a_packet_are_cut() -> None:
    with opened(Troubled()) as port, attached(port) as client:
        for byte in packet(b"m%x,8" % VADDR):
            client.sendall(bytes([byte]))
        assert answered(client) == PAGES[:8].hex().encode()


def test_half_a_packet_and_one_that_reads_nothing_hold_up_nobody() -> None:
    with opened(Troubled()) as port, attached(port) as half, attached(port) as deaf, attached(port) as other:
        half.sendall(b"$m%x" % VADDR)
        deaf.setblocking(False)
        try:
            while deaf.send(packet(b"m%x,2000" % VADDR) * 100):
                pass
        except BlockingIOError:
            pass
        assert asked(other, b"m%x,2" % VADDR) == b"0001"


def test_what_is_no_gdb_is_hung_up_on() -> None:
    said: list[str] = []
    with opened(Troubled(), said.append) as port, attached(port) as client:
        client.sendall(b"$" + b"x" * (MAX_PACKET + 8))
        with suppress(ConnectionResetError):  # it had not read everything
            assert client.recv(1) == b""
    assert "no gdb" in said[0]


def test_there_are_only_so_many_at_once() -> None:
    with opened(Troubled()) as port, ExitStack() as stack:
        clients = [stack.enter_context(attached(port)) for _ in range(MAX_CLIENTS)]
        assert all(asked(client, b"?") for client in clients)
        with attached(port) as late:
            assert late.recv(1) == b""


def test_a_dump_that_changes_ends_every_session_with_one_sentence() -> None:
    said: list[str] = []
    below = Troubled()
    door = GdbDoor(target(below), said.append)
    with door.listener.listening("127.0.0.1", 0) as port, attached(port) as one, attached(port) as other:
        assert asked(one, b"?") == asked(other, b"?") == b"T05thread:1;"
        below.error = SourceChangedError("the dump is another by now")
        assert asked(one, b"m%x,8" % VADDR) == b""
        assert answered(other) == b""
        assert door.listener.changed.wait(WITHIN)
    assert said == ["the dump is another by now"]
