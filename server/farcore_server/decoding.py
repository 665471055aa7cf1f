"""Decoding: sends a body whose bytes are decompressed first, by threads, a few pieces ahead of the socket.

As with every body: bytes are read, then the files are looked at (fstat), then they are sent.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web

from farcore.source import Extent, Source
from farcore_server.lane import Lane
from farcore_server.opened import Opened

# Bytes of a piece: 128 pages, which a core decompresses in a millisecond or two.
PIECE: Final = 512 << 10
# Pieces of a stream under way at a time: one is sent, one a core is decompressed, whoever reads.
AHEAD: Final = 3
# Bytes that are decompressed by the loop itself: eight pages, a quarter of a millisecond.
SHORT: Final = 32 << 10
# What is worth its own system call; less goes with the answer's head.
DIRECT: Final = 64 << 10
# What a literal or a page of its own counts at least, so that a fragmented dump's pieces have a bounded number of parts.
LEAST: Final = 1 << 10
# The codecs leave Python's lock alone while they work.
_POOL: Final = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")

_Piece = list[memoryview | Extent]


async def send(
    request: web.Request, response: web.StreamResponse, opened: Opened, memory: Source, body: Iterable[memoryview | Extent]
) -> None:
    """Send ``body``, whose Extents are of ``memory``, through a prepared ``response``.

    SourceChangedError when a file has changed, FaultError for a page that cannot be read: the caller cuts the connection.
    """
    loop = asyncio.get_running_loop()
    rest = pieces(body)
    first = next(rest, None)
    if first is None:
        return
    prompt = opened.prompt if memory is opened.files.memory else None
    if prompt is not None and (content := at_once(prompt, first)) is not None:
        opened.demand_unchanged()
        await response.write(content)
    else:
        rest = itertools.chain([first], rest)
    under_way: deque[asyncio.Future[bytes | memoryview]] = deque()
    try:
        while True:
            while len(under_way) < AHEAD and (piece := next(rest, None)) is not None:
                under_way.append(loop.run_in_executor(_POOL, _read, memory, piece))
            if not under_way:
                return
            content = await under_way.popleft()
            opened.demand_unchanged()
            await _write(request, response, content)
    finally:
        for future in under_way:
            future.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _write(request: web.Request, response: web.StreamResponse, content: bytes | memoryview) -> None:
    """Past the transport where that can be: it would copy what the socket does not take at once."""
    lane = request.protocol
    if not isinstance(lane, Lane) or lane.outlet is None or len(content) < DIRECT:
        await response.write(content)
        return
    await response.write(b"")
    try:
        await (await lane.flushed()).send_all(content)
    except ConnectionError:
        # The socket has learnt before its transport that the client is gone.
        if request.transport is not None:
            request.transport.abort()
        raise
    # aiohttp counts what goes through its writer; the rest of its head's promise is kept here.
    request.writer.output_size += len(content)


def pieces(body: Iterable[memoryview | Extent]) -> Iterator[_Piece]:
    """The body's parts in groups of about PIECE bytes, none longer."""
    group: _Piece = []
    room = PIECE
    for part in body:
        at, length = 0, len(part) if isinstance(part, memoryview) else part.length
        while at < length:
            size = min(length - at, room)
            group.append(part[at : at + size] if isinstance(part, memoryview) else Extent(part.offset + at, size))
            at += size
            room -= max(size, LEAST)
            if room <= 0:
                yield group
                group, room = [], PIECE
    if group:
        yield group


def at_once(prompt: Source, piece: _Piece) -> bytes | memoryview | None:
    """A short piece whose pages wait for nothing: decompressing them takes no longer than handing them to a thread would."""
    if sum(part.length for part in piece if isinstance(part, Extent)) > SHORT:
        return None
    try:
        return _read(prompt, piece)
    except BlockingIOError:
        return None


def _read(memory: Source, piece: _Piece) -> bytes | memoryview:
    parts = [part if isinstance(part, memoryview) else memory.pread(*part) for part in piece]
    return parts[0] if len(parts) == 1 else b"".join(parts)
