"""A server that answers what a test wrote down, right or wrong, and hangs up; all it knows of HTTP is where a head ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

JSON = "application/json"
PROBLEM = "application/problem+json"
ETAG = '"v1"'

# What is sent in answer to "GET /v1/dumps"; None: nothing, and the connection stays open.
Script = Mapping[str, bytes | None] | Callable[[str], bytes | None]


@dataclass(slots=True)
class Hostile:
    """Its base URL, and the heads of the requests that came."""

    url: str
    asked: list[str] = field(default_factory=list)

    def requests(self) -> list[str]:
        """Method and target of each."""
        return [head.partition(" HTTP/")[0] for head in self.asked]


def answer(body: bytes = b"", status: str = "200 OK", **fields: str) -> bytes:
    """A whole answer; header fields by name with ``_`` for ``-``. Content-Length is the body's unless given."""
    given = {"connection": "close", **{name.replace("_", "-").lower(): value for name, value in fields.items()}}
    if "transfer-encoding" not in given:
        given.setdefault("content-length", str(len(body)))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextmanager
def hostile(script: Script) -> Iterator[Hostile]:
    """The server on loopback, in a thread, for the time of the body."""
    server = Hostile("")
    ready = threading.Event()
    stoppers: list[Callable[[], object]] = []

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        stoppers.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with await asyncio.start_server(lambda *streams: _one(script, server, stop, *streams), "127.0.0.1") as listening:
            server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        stoppers[0]()
        thread.join(10)


async def _one(
    script: Script, server: Hostile, stop: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        server.asked.append(head)
        line = head.partition(" HTTP/")[0]
        said = script(head) if callable(script) else script[line]
        if said is None:
            await stop.wait()
        else:
            writer.write(said)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
