"""HTTP/1.1 over a plain socket: says what the bytes on the wire are, and nothing that a client library would smooth over.

with Connection(url) as server:
    answer = server.get("/v1/dumps", Range="bytes=0-9")
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Head:
    """A status line and header fields, in the order and the spelling they came in."""

    version: str
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The value of a field that may come once at most."""
        values = self.all(name)
        if len(values) > 1:
            raise ValueError(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Answer:
    """A head and its whole body."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    def get(self, name: str) -> str | None:
        """The value of a header field."""
        return self.head.get(name)


class CutError(Exception):
    """The connection ended before the message did; ``received`` is the body until then, ``head`` None if not even that came."""

    def __init__(self, head: Head | None, received: bytes) -> None:
        super().__init__(f"cut after {len(received)} bytes of body" if head else "cut before the end of the header")
        self.head, self.received = head, received


class Connection:
    """One connection to ``http://host:port``, kept until close() or a ``with`` ends; ``timeout`` (s) bounds each wait."""

    def __init__(self, url: str, timeout: float = 20) -> None:
        to = urlsplit(url)
        self.host = to.netloc
        self.socket = socket.create_connection((to.hostname, to.port), timeout)
        self._ahead = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def get(self, target: str, **fields: str) -> Answer:
        """GET, fields by name with ``_`` for ``-``: If_Range."""
        return self.request("GET", target, fields)

    def head(self, target: str, **fields: str) -> Answer:
        """HEAD, as get()."""
        return self.request("HEAD", target, fields)

    def request(self, method: str, target: str, fields: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """One request and its answer; Host and Content-Length are added unless given."""
        self.ask(method, target, fields, body)
        return self.answer(method)

    def ask(self, method: str, target: str, fields: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Only the request."""
        given = {name.replace("_", "-").lower(): value for name, value in (fields or {}).items()}
        sized = {"content-length": str(len(body))} if body else {}
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in ({"host": self.host} | sized | given).items())]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def send(self, raw: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(raw)

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer (1xx ones are passed over), to a request of ``method``; CutError if it is not whole."""
        head = self.answer_head()
        while head.status < 200:
            head = self.answer_head()
        return Answer(head, b"" if method == "HEAD" or head.status in (204, 304) else self._body(head))

    def answer_head(self) -> Head:
        """Only the next head; its body is then there for read()."""
        try:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        except (EOFError, ConnectionError) as error:
            raise CutError(None, b"") from error
        version, status, reason = [*lines[0].split(" ", 2), ""][:3]
        fields = (line.partition(":") for line in lines[1:])
        return Head(version, int(status), reason, tuple((name, value.strip(" \t")) for name, _, value in fields))

    def read(self, length: int) -> bytes:
        """Exactly ``length`` bytes; EOFError, with those that came, if the server hangs up first."""
        pieces: list[bytes] = []
        missing = length
        while missing:
            piece, self._ahead = self._ahead[:missing], self._ahead[missing:]
            piece = piece or self.socket.recv(min(missing, 1 << 20))
            if not piece:
                raise EOFError(b"".join(pieces))
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def hung_up(self) -> bool:
        """Whether the server closes the connection without another byte, within the timeout; a reset counts."""
        try:
            return not self._ahead and self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _until(self, end: bytes) -> bytes:
        while end not in self._ahead:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise EOFError(self._ahead)
            self._ahead += piece
        found, _, self._ahead = self._ahead.partition(end)
        return found

    def _body(self, head: Head) -> bytes:
        """RFC 9112 section 6.3: chunked, else Content-Length, else all until the server hangs up."""
        received = bytearray()
        try:
            if (head.get("Transfer-Encoding") or "").lower() == "chunked":
                while length := int(self._until(b"\r\n").partition(b";")[0], 16):
                    self._read_into(received, length)
                    self._expect(b"\r\n")
                self._expect(b"\r\n")
            elif (length_field := head.get("Content-Length")) is not None:
                self._read_into(received, int(length_field))
            else:
                self._read_to_the_end(received)
        except (EOFError, ConnectionError) as error:
            raise CutError(head, bytes(received)) from error
        return bytes(received)

    def _read_into(self, received: bytearray, length: int) -> None:
        try:
            received += self.read(length)
        except EOFError as error:
            received += error.args[0]
            raise

    def _read_to_the_end(self, received: bytearray) -> None:
        received += self._ahead
        self._ahead = b""
        while piece := self.socket.recv(1 << 16):
            received += piece

    def _expect(self, wanted: bytes) -> None:
        found = self.read(len(wanted))
        if found != wanted:
            raise ValueError(f"{wanted!r} belongs here, not {found!r}")
