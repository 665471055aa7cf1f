"""GET /map: which physical ranges hold data, zeros, exclusions, nothing; said while the dump is read for it, then remembered.

Zeros are found by reading, at the speed of the disk, so that the answer is a stream: its first bytes come at once, runs as
they are found, and white space where none was found for a while, so that nobody takes the silence for the end.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from farcore import memorymap
from farcore.errors import FarcoreError
from farcore.runs import Run
from farcore_server import conditional
from farcore_server.catalogue import Catalogue
from farcore_server.lookup import lookup
from farcore_server.opened import Opened
from farcore_server.state import State

# Steps of reading at once in a worker: the disk is others' as well.
AT_ONCE: Final = 2
# Seconds after which a client hears that the server is still there; proxies give up after 60.
BREATH: Final = 5.0
# Bytes of JSON that is remembered of one map, 100,000 runs; one of more is read anew, which no real dump needs.
KEPT: Final = 8 << 20
# Maps that are kept in memory, packed: 10 KB to 1 MB each.
KEPT_MAPS: Final = 16

_KIND: Final = "maps"


class MemoryMaps:
    """The handler, over one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._kept = _Kept(catalogue.state)
        self._readers = asyncio.Semaphore(AT_ONCE)

    async def map(self, request: web.Request) -> web.StreamResponse:
        """{"runs": [{"start", "end", "kind"}]}."""
        opened = await lookup(self.catalogue, request.match_info["id"])
        if (unchanged := conditional.current(request, opened.dump)) is not None:
            return unchanged
        headers = {**conditional.fields(opened.dump), "Content-Type": "application/json"}
        if request.method == "HEAD":
            return web.Response(headers=headers)
        known = await asyncio.to_thread(self._kept.load, opened.dump.etag)
        if known is not None:
            return web.Response(body=known, headers=headers)
        return await self._stream(request, opened, web.StreamResponse(headers=headers))

    async def _stream(self, request: web.Request, opened: Opened, response: web.StreamResponse) -> web.StreamResponse:
        await response.prepare(request)
        await response.write(b'{"runs": [')
        try:
            whole = await self._read(opened, response)
        except FarcoreError:
            if request.transport is not None:
                request.transport.abort()
            raise
        await response.write(b"\n]}\n")
        if whole is not None:
            await asyncio.to_thread(self._kept.save, opened.dump.etag, whole)
        return response

    async def _read(self, opened: Opened, response: web.StreamResponse) -> bytes | None:
        """Write the runs as they are found; the whole JSON if it is to be remembered."""
        layout = await opened.layout("physical")
        decoded = opened.files.memory
        memory = opened.files.space(opened.dump, "physical") if decoded is None else decoded.pages
        found = memorymap.steps(memory, layout.runs, layout.size)
        texts = _texts(found)
        whole: list[bytes] | None = [b'{"runs": [']
        size, wrote = 0, time.monotonic()
        while (text := await self._step(texts)) is not None:
            opened.demand_unchanged()
            if not text and time.monotonic() - wrote < BREATH:
                continue
            await response.write(text or b"\n")
            wrote = time.monotonic()
            size += len(text)
            if whole is not None:
                whole.append(text)
            if size > KEPT:
                whole = None
        return None if whole is None else b"".join([*whole, b"\n]}\n"])

    async def _step(self, texts: Iterator[bytes]) -> bytes | None:
        """What the next step finds. Who does not read his answer keeps nobody from his turn."""
        async with self._readers:
            return await asyncio.to_thread(next, texts, None)


def _texts(found: Iterator[list[Run]]) -> Iterator[bytes]:
    """The runs of each step as JSON, with the commas between them."""
    comma = itertools.chain([""], itertools.repeat(","))
    for runs in found:
        yield "".join(f"{next(comma)}\n{_row(run)}" for run in runs).encode()


def _row(run: Run) -> str:
    return f'{{"start": "{run.start:#x}", "end": "{run.stop:#x}", "kind": "{memorymap.NAMES[run.kind]}"}}'


class _Kept:
    """Maps by ETag, packed; in memory, and in the state directory for the next run and the other workers."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._maps: OrderedDict[str, bytes] = OrderedDict()

    def load(self, etag: str) -> bytes | None:
        """The JSON; None where it is not remembered. Blocks."""
        packed = self._maps.get(etag) or self.state.load(_KIND, etag)
        if packed is None:
            return None
        self._keep(etag, packed)
        return zlib.decompress(packed)

    def save(self, etag: str, whole: bytes) -> None:
        """Remember it. Blocks."""
        packed = zlib.compress(whole, 1)
        self._keep(etag, packed)
        self.state.save(_KIND, etag, packed)

    def _keep(self, etag: str, packed: bytes) -> None:
        self._maps[etag] = packed
        self._maps.move_to_end(etag)
        while len(self._maps) > KEPT_MAPS:
            self._maps.popitem(last=False)
