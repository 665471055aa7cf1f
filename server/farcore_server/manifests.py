"""GET /manifest and POST /verified: what proves a copy of a dump, and who says that he has one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from farcore import manifest
from farcore_server import conditional
from farcore_server.access import GRANT
from farcore_server.catalogue import Catalogue
from farcore_server.digests import Digests
from farcore_server.lookup import lookup
from farcore_server.problem import Problem
from farcore_server.upload import upload

LOG: Final = logging.getLogger(__name__)

# {"etag": ...}, with room for what a later version says.
MAX_VERIFIED: Final = 4096
# Digests that are written at once: half a megabyte of JSON.
_AT_ONCE: Final = 8192


class Manifests:
    """Handlers over one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.digests = Digests(catalogue.state)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """The digests that are known; asking makes the server go on with them, unless for ?known alone."""
        opened = await lookup(self.catalogue, request.match_info["id"])
        dump = opened.dump
        # If-Match alone counts: what is known grows while the dump stays, so there is no 304.
        conditional.demand(request, dump)
        if not manifest.has_digests():
            detail = "This server cannot make digests: the Python package blake3 is not installed there."
            raise Problem(501, "no-digests", "No digests here", detail, dump=dump.id)
        size = (await opened.layout("vmcore")).size
        go_on = "known" not in request.query
        known, trouble = await asyncio.to_thread(lambda: self.digests.known(opened, size, go_on=go_on))
        opened.demand_unchanged()
        verified = await asyncio.to_thread(_verified, self.catalogue, dump.id, dump.etag)
        response = web.StreamResponse(headers=conditional.fields(dump) | {"Cache-Control": "no-store"})
        response.content_type, response.charset = "application/json", "utf-8"
        await response.prepare(request)
        if request.method != "HEAD":
            about = {
                "algorithm": manifest.ALGORITHM,
                "chunk_size": manifest.CHUNK,
                "size": size,
                "etag": dump.etag,
                "complete": len(known) == manifest.count(size) * manifest.DIGEST,
                "trouble": trouble or None,
                "verified": verified,
            }
            for text in _texts(about, known):
                await response.write(text)
        return response

    async def verified(self, request: web.Request) -> web.Response:
        """A client holds a proven copy: said to the log and in the state directory, for who waits for it."""
        opened = await lookup(self.catalogue, request.match_info["id"])
        dump, name = opened.dump, request[GRANT].name
        if name is None:
            detail = "Only who shows a token is believed: this server has no token file."
            raise Problem(403, "token-needed", "A token is needed", detail, dump=dump.id)
        etag = _etag(await upload(request, MAX_VERIFIED))
        if etag != dump.etag:
            detail = f"The dump is another version by now: its ETag is {dump.etag}."
            raise Problem(412, "changed", "Precondition failed", detail, dump=dump.id, headers={"ETag": dump.etag})
        said = {"id": dump.id, "etag": etag, "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "by": name}
        LOG.info("%s: %s holds a proven copy of %s", dump.id, name, etag)
        await asyncio.to_thread(self.catalogue.state.say, "verified", dump.id, json.dumps(said) + "\n")
        return web.Response(status=204)


def _verified(catalogue: Catalogue, dump_id: str, etag: str) -> dict[str, str] | None:
    said = catalogue.state.said("verified", dump_id)
    try:
        found = json.loads(said) if said else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("etag") == etag else None


def _etag(body: bytearray | None) -> str:
    try:
        found = json.loads(body or b"")
    except (ValueError, RecursionError):
        found = None
    etag = found.get("etag") if isinstance(found, dict) else None
    if not isinstance(etag, str):
        raise Problem(400, "bad-verified", "Not understood", 'Send {"etag": "..."}, with the quotes that the ETag itself has.')
    return etag


def _texts(about: dict[str, object], known: bytes) -> Iterator[bytes]:
    """The JSON, by pieces: a dump of 1 TiB has 18 MB of it."""
    yield json.dumps(about)[:-1].encode() + b', "digests": ['
    size = manifest.DIGEST
    for at in range(0, len(known), _AT_ONCE * size):
        some = known[at : at + _AT_ONCE * size]
        yield b"," * (at > 0) + ",".join(f'"{some[low : low + size].hex()}"' for low in range(0, len(some), size)).encode()
    yield b"]}\n"
