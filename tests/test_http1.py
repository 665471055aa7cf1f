"""The tests' own HTTP client reads what is on the wire, and notices what is missing from it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.http1 import Connection, CutError


@contextmanager
def answering(*answers: bytes) -> Iterator[Connection]:
    """A connection to a server that sends these bytes, one piece after each request it reads, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked: list[bytes] = []

        def run() -> None:
            peer, _ = listener.accept()
            with peer:
                for answer in answers:
                    asked.append(peer.recv(65536))
                    peer.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        with Connection(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=5) as connection:
            yield connection
        thread.join(5)


def test_answers_on_one_connection_are_told_apart() -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: 1\r\nx:  2 \r\n\r\nabc"
    with answering(first, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as server:
        answer = server.get("/a")
        assert (answer.status, answer.head.reason, answer.body) == (200, "OK", b"abc")
        assert answer.head.all("X") == ["1", "2"]
        assert server.get("/b").status == 404
        assert server.hung_up()


def test_a_chunked_body_is_joined_and_a_head_answer_has_none() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n"
    with answering(chunked, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n") as server:
        assert server.get("/").body == b"abc0123456789"
        assert (server.head("/").get("content-length"), server.hung_up()) == ("99", True)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    with answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nall of it") as server:
        assert server.get("/").body == b"all of it"


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", b""),
        (b"", b""),
    ],
)
def test_an_answer_that_was_cut_is_an_error_with_what_had_come(sent: bytes, received: bytes) -> None:
    with answering(sent) as server, pytest.raises(CutError) as caught:
        server.get("/")
    assert caught.value.received == received


def test_a_request_is_sent_as_it_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Connection(f"http://127.0.0.1:{port}") as connection, listener.accept()[0] as peer:
            connection.ask("POST", "/pages", {"If_Match": '"x"'}, b"body")
            expected = f'POST /pages HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: 4\r\nif-match: "x"\r\n\r\nbody'
            assert peer.recv(65536) == expected.encode()
