"""Stream: sends a body's pieces, fairly and from one version of the dump or not at all.

Whoever has received a whole body has bytes of one version: small pieces are read, then the file is looked at (fstat), then
they are sent; large ones are looked at before, handed to the kernel whole, and never come last (body.COPIED).

Large pieces leave by the cheapest way there is: sendfile(2) or splice(2) past the transport (Outlet); as copies through one
that would touch mapped memory in user space, which is SIGBUS once the file has lost a page (Passage: TLS, asyncio's own). With
an aiohttp that the lane does not know: mapped memory where send(2) alone touches it (uvloop without TLS), else copies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from farcore.source import Extent
from farcore_server.body import COPIED, PIECE
from farcore_server.lane import Lane
from farcore_server.opened import Opened

# What a piece counts at least, however short: a dump of 70,000 PT_LOADs of a byte each costs system calls, not bytes.
LEAST: Final = 16 << 10


async def send(request: web.Request, response: web.StreamResponse, opened: Opened, body: Iterable[memoryview | Extent]) -> None:
    """Send ``body`` through a prepared ``response``, at most PIECE bytes a turn of the loop.

    SourceChangedError when the file has changed: the caller cuts the connection.
    """
    push = _lend if opened.source.maps and _lends(request) else _copy
    if isinstance(request.protocol, Lane) and request.protocol.outlet is not None and opened.residency.sendable:
        push = _push
    turn = 0
    # The head goes out by itself: aiohttp would join it with the first piece, and so touch the map.
    await response.write(b"")
    for piece in body:
        if isinstance(piece, memoryview):
            opened.demand_unchanged()
            await response.write(piece)
            turn += max(len(piece), LEAST)
        elif piece.length > COPIED and not opened.residency.blind:
            await push(request, response, opened, piece)
        else:
            turn += max(await _copy(request, response, opened, piece), LEAST)
        if turn >= PIECE:
            # A transport that takes everything never suspends us: let the others have their turn.
            turn = 0
            await asyncio.sleep(0)


async def _push(request: web.Request, response: web.StreamResponse, opened: Opened, piece: Extent) -> int:
    lane = request.protocol
    assert isinstance(lane, Lane)
    try:
        await (await lane.flushed()).push(opened, *piece)
    except ConnectionError:
        # The socket has learnt before its transport that the client is gone.
        if request.transport is not None:
            request.transport.abort()
        raise
    # aiohttp counts what goes through its writer; the rest of its head's promise is kept here.
    request.writer.output_size += piece.length
    return piece.length


async def _lend(request: web.Request, response: web.StreamResponse, opened: Opened, piece: Extent) -> int:
    at, end = piece.offset, piece.offset + piece.length
    while at < end:
        await opened.residency.bring(at, min(PIECE, end - at))
        opened.demand_unchanged()
        content = opened.source.lend(at, min(PIECE, end - at))
        # aiohttp waits for the transport once more than 64 KiB are under way, and ours keeps nothing back.
        await response.write(content)
        await asyncio.sleep(0)
        at += len(content)
    return piece.length


async def _copy(request: web.Request, response: web.StreamResponse, opened: Opened, piece: Extent) -> int:
    for at in range(piece.offset, piece.offset + piece.length, COPIED):
        content = await opened.residency.read(at, min(COPIED, piece.offset + piece.length - at))
        opened.demand_unchanged()
        await response.write(content)
        if at % PIECE < COPIED:
            await asyncio.sleep(0)
    return piece.length


def _lends(request: web.Request) -> bool:
    transport = request.transport
    is_uvloop = type(asyncio.get_running_loop()).__module__.partition(".")[0] == "uvloop"
    return is_uvloop and transport is not None and transport.get_extra_info("ssl_object") is None
