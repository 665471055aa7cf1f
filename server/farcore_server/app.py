"""The routes: every resource of the wire, behind one gate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from aiohttp.http_writer import StreamWriter

from farcore_server import describe, metrics
from farcore_server.access import Access, access_middleware
from farcore_server.catalogue import Catalogue
from farcore_server.dmesg import KernelLogs
from farcore_server.dump import Dump
from farcore_server.lookup import missing
from farcore_server.manifests import Manifests
from farcore_server.memorymap import MemoryMaps
from farcore_server.metrics import Metrics
from farcore_server.page import page
from farcore_server.pages import Batches
from farcore_server.problem import SERVER, problem_middleware
from farcore_server.profiles import Profiles
from farcore_server.resources import Resources

# A page shows so many PT_LOADs, and refers to the JSON for the rest.
_SHOWN: Final = 200
_VARY: Final = {"Vary": "Accept"}
# Bytes of JSON that are written at once.
_WRITE: Final = 64 << 10


class Pages:
    """Handlers for what is not bytes of a dump: descriptions, health, metrics."""

    def __init__(self, catalogue: Catalogue, counts: Metrics) -> None:
        self.catalogue, self.counts = catalogue, counts

    async def index(self, request: web.Request) -> web.Response:
        """The catalogue for people."""
        # In a thread: 10,000 dumps take a second.
        listed = self._listed()
        return await asyncio.to_thread(lambda: page("catalogue.html", dumps=[describe.brief(dump) for dump in listed]))

    async def dumps(self, request: web.Request) -> web.StreamResponse:
        """The catalogue as JSON, by name."""
        return await _json(request, describe.listing(self._listed()))

    async def dump(self, request: web.Request) -> web.StreamResponse:
        """One Dump: JSON (with ?brief as a list has it), or a page for a browser."""
        found = self.catalogue.marked().get(request.match_info["id"])
        if found is None:
            raise missing(request.match_info["id"])
        if "text/html" not in request.headers.get("Accept", ""):
            brief = "brief" in request.query
            return await _json(request, [json.dumps(describe.brief(found))] if brief else describe.text(found), _VARY)
        origin, said = f"{request.scheme}://{request.host}", describe.full(found, _SHOWN)
        more = len(describe.loads(found)) - len(said["segments"]) + said["segments_left_out"]
        response = page("dump.html", dump=said, origin=origin, more=more)
        response.headers.update(_VARY)
        return response

    async def healthz(self, request: web.Request) -> web.Response:
        """The process answers."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """The catalogue is there; not before the first scan has ended, which is when the server starts to listen."""
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text format."""
        text = metrics.exposition(self.counts, self.catalogue.marked().values())
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def openapi(self, request: web.Request) -> web.Response:
        """What this page of routes says, for machines."""
        return web.json_response(body=(files("farcore_server") / "openapi.json").read_bytes())

    def _listed(self) -> list[Dump]:
        return sorted(self.catalogue.marked().values(), key=lambda dump: dump.name)


def make_app(catalogue: Catalogue, access: Access, counts: Metrics) -> web.Application:
    """The application: every route passes the gate, and every error becomes problem+json above it."""
    app = web.Application(middlewares=[_counting(counts), problem_middleware, access_middleware(access)])
    app.on_response_prepare.append(_sign)
    pages, resources = Pages(catalogue, counts), Resources(catalogue, access, counts)
    profiles, manifests = Profiles(catalogue.state), Manifests(catalogue)
    dump = "/v1/dumps/{id}"
    app.add_routes(
        [
            web.get("/", pages.index, name="catalogue"),
            web.get("/v1/dumps", pages.dumps, name="dumps"),
            web.get(dump, pages.dump, name="dump"),
            web.get(f"{dump}/vmcore", resources.vmcore, name="vmcore"),
            web.get(f"{dump}/stored", resources.stored, name="stored"),
            web.get(f"{dump}/memory/physical", resources.physical, name="physical"),
            web.post(f"{dump}/pages", Batches(catalogue, counts).pages, name="pages"),
            web.get(f"{dump}/map", MemoryMaps(catalogue).map, name="map"),
            web.get(f"{dump}/dmesg", KernelLogs(catalogue).dmesg, name="dmesg"),
            web.get(f"{dump}/manifest", manifests.manifest, name="manifest"),
            web.post(f"{dump}/verified", manifests.verified, name="verified"),
            web.get("/v1/profiles/{build_id}", profiles.get, name="profile"),
            web.put("/v1/profiles/{build_id}", profiles.put, name="profile"),
            web.get("/healthz", pages.healthz, name="healthz"),
            web.get("/readyz", pages.readyz, name="readyz"),
            web.get("/metrics", pages.metrics, name="metrics"),
            web.get("/openapi.json", pages.openapi, name="openapi"),
        ]
    )
    return app


async def _json(request: web.Request, pieces: Iterable[str], headers: Mapping[str, str] | None = None) -> web.StreamResponse:
    """JSON that is made while it is sent: 70,000 PT_LOADs are 8 MB, which neither the loop nor the memory has at once."""
    response = web.StreamResponse(headers={"Cache-Control": "private, no-cache", **(headers or {})})
    response.content_type, response.charset = "application/json", "utf-8"
    await response.prepare(request)
    if request.method != "HEAD":
        # A short answer is one write: each is a packet of its own, and a new connection has ten in its first round trip.
        held = bytearray()
        for piece in pieces:
            held += piece.encode()
            if len(held) >= _WRITE:
                await response.write(held)
                held = bytearray()
            await asyncio.sleep(0)
        await response.write_eof(bytes(held))
    return response


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """Server; and aiohttp 3.8 sends the end of a chunked body after a HEAD, and with a 304 a length that is not the dump's."""
    response.headers["Server"] = SERVER
    if request.method != "HEAD" and response.status != 304:
        return
    if response.headers.pop("Transfer-Encoding", None) and isinstance(request.writer, StreamWriter):
        request.writer.chunked = False
    if response.status == 304:
        response.headers.pop("Content-Length", None)


def _counting(counts: Metrics) -> Any:
    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        counts.count(request.match_info.route.name or "none", response.status, 0)
        return response

    return count
