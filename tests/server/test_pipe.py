"""Pipe: a file's bytes through a pipe into a socket, and nothing of them left in it, whatever the socket takes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcore_server.pipe import SIZE, Pipe

CONTENT = os.urandom(3 * SIZE + 5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("pipe") / "vmcore"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's end, which never blocks, and a client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            client.settimeout(20)
            yield server, client


def read(client: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length and (piece := client.recv(length - len(received))):
        received += piece
    return bytes(received)


@given(
    spans=st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(1, 2 * SIZE)), min_size=1, max_size=6),
    larger=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_arrives_is_what_was_said_to_be_moved(
    file: int, ends: tuple[socket.socket, socket.socket], spans: list[tuple[int, int]], larger: bool
) -> None:
    server, client = ends
    pipe = Pipe()
    if not larger:
        fcntl.fcntl(pipe._in, fcntl.F_SETPIPE_SZ, 64 << 10)
    for offset, length in spans:
        moved = 0
        try:
            # The client does not read meanwhile: often it takes a part, and sometimes nothing.
            moved = pipe.move(file, offset, length, server.fileno())
        except BlockingIOError:
            continue
        finally:
            assert read(client, moved) == CONTENT[offset : offset + moved]
        assert moved <= max(0, min(length, len(CONTENT) - offset))
        assert moved or offset >= len(CONTENT)


def test_a_reader_gets_everything_in_order(file: int, ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    pipe, sent = Pipe(), 0
    received: list[bytes] = []
    reading = threading.Thread(target=lambda: received.append(read(client, len(CONTENT) - 3)))
    reading.start()
    server.setblocking(True)
    while sent < len(CONTENT) - 3:
        sent += pipe.move(file, 3 + sent, len(CONTENT) - 3 - sent, server.fileno())
    reading.join(20)
    assert received == [CONTENT[3:]]
    assert pipe.move(file, len(CONTENT), 1, server.fileno()) == 0


def next_has_its_own(pipe: Pipe, file: int, ends: tuple[socket.socket, socket.socket]) -> None:
    """Whoever asks after a socket has taken nothing."""
    server, client = ends
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += server.send(CONTENT)
    with pytest.raises(BlockingIOError):
        pipe.move(file, 0, SIZE, server.fileno())
    read(client, sent)
    assert pipe.move(file, 2 * SIZE, 4096, server.fileno()) == 4096
    assert read(client, 4096) == CONTENT[2 * SIZE : 2 * SIZE + 4096]


def test_a_socket_that_takes_nothing_leaves_the_pipe_empty(file: int, ends: tuple[socket.socket, socket.socket]) -> None:
    next_has_its_own(Pipe(), file, ends)


def test_a_lost_connection_is_an_error_and_the_next_gets_its_own_bytes(
    file: int, ends: tuple[socket.socket, socket.socket]
) -> None:
    server, client = ends
    pipe = Pipe()
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        pipe.move(file, 0, SIZE, ours.fileno())
    assert pipe.move(file, SIZE, 100, server.fileno()) == 100
    assert read(client, 100) == CONTENT[SIZE : SIZE + 100]


@pytest.mark.parametrize("fails", [None, OSError])
def test_what_cannot_be_let_go_of_reaches_nobody(
    file: int, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, fails: type[OSError] | None
) -> None:
    pipe, splice = Pipe(), os.splice

    def reluctant(source: int, to: int, count: int, **more: int) -> int:
        """Half of it goes nowhere, and then no more."""
        if to != pipe._nowhere:
            return splice(source, to, count, **more)
        if count < 2 * SIZE // 3:
            if fails:
                raise fails
            return 0
        return splice(source, to, SIZE // 2)

    monkeypatch.setattr(os, "splice", reluctant)
    next_has_its_own(pipe, file, ends)


def test_a_user_who_has_many_pipes_has_smaller_ones(
    file: int, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fcntl.fcntl

    def refuses(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError
        return asked(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuses)
    pipe = Pipe()
    assert pipe.size < SIZE
    server, client = ends
    assert pipe.move(file, 1, 2 * pipe.size, server.fileno()) == 2 * pipe.size
    assert read(client, 2 * pipe.size) == CONTENT[1 : 1 + 2 * pipe.size]


def test_its_descriptors_end_with_it() -> None:
    before = os.listdir("/proc/self/fd")
    pipe = Pipe()
    assert len(os.listdir("/proc/self/fd")) == len(before) + 3
    del pipe
    assert os.listdir("/proc/self/fd") == before


def test_a_lack_of_descriptors_is_an_error_and_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")

    def lacks() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", lacks)
    with pytest.raises(OSError, match="Too many open files"):
        Pipe()
    assert os.listdir("/proc/self/fd") == before
