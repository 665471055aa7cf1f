"""The byte resources of a dump: /vmcore, /stored and /memory/physical, by GET and HEAD."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import HttpVersion11, web

from farcore.errors import FarcoreError
from farcore.layout import Layout, stored
from farcore.ranges import PART_OVERHEAD
from farcore.source import Source
from farcore_server import body, decoding, stream
from farcore_server.access import GRANT, Access
from farcore_server.answer import Answer, Part, Representation, answer
from farcore_server.catalogue import Catalogue
from farcore_server.dump import Dump, Resource
from farcore_server.grant import Grant, split, template
from farcore_server.lane import Lane
from farcore_server.lookup import lookup
from farcore_server.metrics import Metrics
from farcore_server.opened import Opened
from farcore_server.problem import Problem

# More runs than this are walked in a thread: 1,000 take 1 ms.
_MANY: Final = 1000


class Resources:
    """Handlers over one catalogue."""

    def __init__(self, catalogue: Catalogue, access: Access, metrics: Metrics) -> None:
        self.catalogue, self.access, self.metrics = catalogue, access, metrics
        # Connections that ask alike share what they were granted, for as long as one of them lasts.
        self._grants: WeakValueDictionary[tuple[object, ...], Grant] = WeakValueDictionary()

    async def vmcore(self, request: web.Request) -> web.StreamResponse:
        """The dump as one ELF vmcore; with ?normalised in the kernel's own layout."""
        return await self._serve(request, "normalised" if "normalised" in request.query else "vmcore")

    async def stored(self, request: web.Request) -> web.StreamResponse:
        """The file's bytes; of a set those of its first part, or of ?part=N."""
        return await self._serve(request, "stored")

    async def physical(self, request: web.Request) -> web.StreamResponse:
        """Physical memory: the byte position is the physical address; ?fill=zero asks for zeros where nothing is."""
        return await self._serve(request, "physical")

    async def _serve(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        fill = _fill(request) if resource == "physical" else False
        opened = await lookup(self.catalogue, request.match_info["id"])
        dump = opened.dump
        part = _part(request, dump) if resource == "stored" else 1
        layout = await opened.layout(resource) if part == 1 else stored(dump.files[part - 1][1].size)
        # In a space with holes no byte between two ranges may be touched.
        gap = 1 if resource == "physical" else PART_OVERHEAD
        wanted = Representation(layout.size, dump.etag, dump.identity.modified, gap)
        told = answer(request.method, request.headers, wanted, secrets.token_hex(16))
        if told.status >= 400:
            raise _problem(told, dump)
        if request.method == "GET" and not fill:
            await _demand(layout, told.parts)
        below = opened.files.others[part - 2] if part > 1 else opened.decoded(resource)
        return await self._send(request, opened, resource, layout, told, below, fill=fill)

    async def _send(
        self,
        request: web.Request,
        opened: Opened,
        resource: Resource,
        layout: Layout,
        told: Answer,
        below: Source | None,
        *,
        fill: bool,
    ) -> web.StreamResponse:
        """``below`` is what the layout is over, where that is not the dump's own file."""
        headers = {**told.headers, "X-Content-Type-Options": "nosniff"}
        if resource == "physical" and opened.dump.xen is not None:
            headers["Farcore-Memory"] = "xen-machine"
        response = web.StreamResponse(status=told.status, headers=headers)
        if told.status != 304:
            response.content_length = told.length
        await response.prepare(request)
        if request.method == "HEAD" or not told.length:
            return response
        if below is None:
            # Before the body: who reads quickly asks again before this returns.
            self._arm(request, response, opened, layout, told)
        pieces = itertools.chain(body.pieces(layout, told.parts, fill=fill), _tail(told))
        before = request.writer.output_size
        self.metrics.streams += 1
        try:
            if below is None:
                await stream.send(request, response, opened, pieces)
            else:
                await decoding.send(request, response, opened, below, pieces)
        except FarcoreError:
            self.metrics.cut += 1
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            self.metrics.streams -= 1
            self.metrics.count_sent(request.match_info.route.name or "", request.writer.output_size - before)
        return response

    def _arm(self, request: web.Request, response: web.StreamResponse, opened: Opened, layout: Layout, told: Answer) -> None:
        """Let the connection repeat a plain single-range answer by itself."""
        lane = request.protocol
        if told.status != 206 or told.tail or not isinstance(lane, Lane) or not lane.pattern:
            return
        if request.version != HttpVersion11 or not response.keep_alive or request.body_exists:
            return
        halves = split(lane.pattern)
        head = template(f"HTTP/1.1 {response.status} {response.reason}", response.headers, layout.size)
        if halves is not None and head is not None:
            route = request.match_info.route.name or ""
            what = (*halves, *head, opened, layout, route, self.access, request[GRANT].version)
            lane.arm(self._grants.setdefault(what, Grant(*what)))


def _fill(request: web.Request) -> bool:
    asked = request.query.getall("fill", [])
    if asked not in ([], ["zero"]):
        detail = "The only fill there is is ?fill=zero: zeros where the dump has no bytes."
        raise Problem(400, "bad-fill", "No such fill", detail, dump=request.match_info["id"])
    return bool(asked)


def _part(request: web.Request, dump: Dump) -> int:
    """Which file of a set is asked for, from 1 on."""
    asked, files = request.query.get("part", "1"), len(dump.files)
    if not (asked.isascii() and asked.isdigit() and len(asked) < 6 and 1 <= int(asked) <= files):
        detail = f"The dump is stored in {files:,} file{'' if files == 1 else 's'}: ?part=1 to ?part={files}."
        raise Problem(404, "no-such-part", "No such part", detail, dump=dump.id)
    return int(asked)


async def _demand(layout: Layout, parts: tuple[Part, ...]) -> None:
    if len(layout.runs) > _MANY:
        await asyncio.to_thread(body.demand, layout, parts)
    else:
        body.demand(layout, parts)


def _problem(told: Answer, dump: Dump) -> Problem:
    slug, title = ("unsatisfiable", "Range not satisfiable") if told.status == 416 else ("changed", "Precondition failed")
    return Problem(told.status, slug, title, told.detail, dump=dump.id, headers=told.headers)


def _tail(told: Answer) -> tuple[memoryview, ...]:
    return (memoryview(told.tail),) if told.tail else ()
