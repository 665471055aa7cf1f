"""Line: one kept connection to a farcored, for a thread that waits in the kernel.

asyncio wakes for every few kilobytes and hands them on in pieces; here a body is received where it is wanted. aiohttp, which
takes longer to import than many a dump to come, is not needed. As with Session, nothing leads away from the server.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, RemoteDisconnected
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from farcore import __version__
from farcore.errors import FarcoreError, SettingsError
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import ServerUrl
from farcore_client.errors import ProtocolError, UnreachableError
from farcore_client.refusal import MAX_PROBLEM, demand_idle, members, redirected, refusal
from farcore_client.unreachable import hung_up, late, not_http, tls, unconnected

if TYPE_CHECKING:
    import ssl

# Seconds of a round trip of which nothing is known.
FAR: Final = 0.05
# A manifest of 64 TiB.
MAX_JSON: Final = 128 << 20
# Where struct tcp_info of linux/tcp.h has tcpi_min_rtt, in microseconds.
_MIN_RTT: Final = 148
T = TypeVar("T")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Line:
    """Used by one thread at a time, but for cut(); ``silence``: seconds without a byte after which it is given up."""

    def __init__(self, server: ServerUrl, credentials: Credentials, context: ssl.SSLContext | None, silence: float) -> None:
        self.server, self._token, self.silence = server, credentials.token, silence
        host = server.host.strip("[]")
        if context is None:
            self._connection = HTTPConnection(host, server.port, timeout=silence)
        else:
            self._connection = HTTPSConnection(host, server.port, timeout=silence, context=context)

    def ask(self, method: str, path: str, headers: Mapping[str, str] = _NONE, body: bytes | None = None) -> HTTPResponse:
        """A 2xx, its body still to come; BusyError where the same may do later, UnreachableError for no answer."""
        with _sentence(self.server):
            self._send(method, path, headers, body)
            answer = self._connection.getresponse()
            demand_idle(answer.status, fields_of(answer), self.server)
            if 300 <= answer.status < 400:
                raise redirected(fields_of(answer), self.server)
            if answer.status >= 400:
                said = answer.headers.get("Content-Type", "")
                raise refusal(
                    answer.status, said, answer.read(MAX_PROBLEM), self.server, space=None, token=self._token is not None
                )
        return answer

    def connect(self) -> None:
        """Make the connection that a later question needs."""
        with _sentence(self.server):
            self._connection.connect()

    def leave(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Say something last, for whose answer nobody waits: ``part`` is to follow."""
        with _sentence(self.server):
            self._send(method, path, headers, body)

    def part(self, seconds: float) -> None:
        """End the line once an answer comes, or after so long: a server may drop what ends together with its words."""
        if self._connection.sock is not None:
            _readable(self._connection.sock, seconds)
        self.close()

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> None:
        fields = {"User-Agent": f"farcore/{__version__}", **headers}
        if self._token:
            fields["Authorization"] = f"Bearer {self._token}"
        if self._connection.sock is not None and _readable(self._connection.sock):
            # The server has ended it meanwhile: nothing else comes unasked.
            self._connection.close()
        self._connection.request(method, path, body, fields)

    def read(self, answer: HTTPResponse, most: int) -> bytes:
        """A short body; ProtocolError if it is longer than ``most``."""
        with _sentence(self.server):
            body = answer.read(most + 1)
        if len(body) > most:
            raise ProtocolError(f"{self.server} answered with more than {most >> 10:,} KiB; is this a farcored?")
        return body

    def json(self, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """The answer to GET, as it came."""
        return members(self.read(self.ask("GET", path, {"Accept": "application/json", **headers}), MAX_JSON), self.server, path)

    def round_trip(self) -> float:
        """The kernel's shortest, in seconds."""
        return self.nearest() or FAR

    def nearest(self) -> float | None:
        """As round_trip(); None where it is not known."""
        found = self._connection.sock
        if found is None:
            return None
        info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT + 4)
        return int.from_bytes(info[_MIN_RTT:], sys.byteorder) / 1e6 if len(info) == _MIN_RTT + 4 else None

    def patience(self, seconds: float) -> None:
        """Give up after so many seconds without a byte, from now on."""
        self.silence = self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)

    def cut(self) -> None:
        """End it, from any thread: whoever waits for it gets an error."""
        found = self._connection.sock
        if found is not None:
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # of the socket under TLS, which wakes its reader

    def close(self) -> None:
        """The connection; the next question makes another."""
        self._connection.close()


class Lines:
    """Lines to one server, as many as are wanted at a time; each is used again."""

    def __init__(self, server: ServerUrl, credentials: Credentials, silence: float) -> None:
        if server.scheme == "http" and credentials.tls_only:
            raise SettingsError(f"--cacert and --cert are for TLS: write https://{server.place}, or leave them out")
        context = credentials.ssl_context() if server.scheme == "https" else None
        self.server, self.silence = server, silence
        self._make = partial(Line, server, credentials, context)
        self._idle: list[Line] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End those that nobody has."""
        while self._idle:
            self._idle.pop().close()

    def take(self) -> Line:
        """One that nobody else has."""
        with suppress(IndexError):  # another thread may have taken the last one
            return self._idle.pop()
        return self.another(self.silence)

    def another(self, silence: float) -> Line:
        """A new one, of other patience, which is the caller's."""
        return self._make(silence)

    def give_back(self, line: Line) -> None:
        """Nothing is under way on it."""
        self._idle.append(line)

    async def run(self, job: Callable[[Line], T]) -> T:
        """The job's result, in a thread of its own; Ctrl-C cuts the line."""
        import asyncio  # late: who has threads of his own does not wait for this

        line = self.take()
        try:
            result = await asyncio.to_thread(job, line)
        except BaseException:
            line.cut()
            line.close()
            raise
        self.give_back(line)
        return result


def fields_of(answer: HTTPResponse) -> Mapping[str, str]:
    """Its header fields, by names in whatever case."""
    return cast(Mapping[str, str], answer.headers)


def _readable(found: socket.socket, seconds: float = 0) -> bool:
    """Whether something comes within so long."""
    waiting = select.poll()
    waiting.register(found, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


@contextmanager
def _sentence(server: ServerUrl) -> Iterator[None]:
    try:
        yield
    except FarcoreError:
        raise
    except TimeoutError as error:
        raise UnreachableError(late(server)) from error
    except (RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
        raise UnreachableError(hung_up(server)) from error
    except BadStatusLine as error:
        raise ProtocolError(not_http(server)) from error
    except (OSError, HTTPException) as error:
        raise UnreachableError(tls(error, server) or unconnected(error, server)) from error
