"""Session: one server, asked over kept connections, with one set of credentials.

Nothing leads away from it: redirects are not followed, proxies, cookies and .netrc (aiohttp's trust_env) are not looked
at, so that a token goes to the URL's own host and no other.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from farcore import __version__
from farcore.errors import SettingsError, Space
from farcore.profile import MAX_SIZE as MAX_PROFILE
from farcore.profile import Profile
from farcore.source import Extent
from farcore_client import partial
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl, ServerUrl
from farcore_client.errors import CutError, ProtocolError
from farcore_client.memorymap import MapReader, MapRun
from farcore_client.partial import Resource
from farcore_client.refusal import MAX_PROBLEM, demand_idle, members, redirected, refusal
from farcore_client.translation import translated

Sink = Callable[[bytes], object]

CONNECT: Final = 15.0  # seconds: five SYNs
# Seconds: a server may first compose a layout, or wake a disk.
SILENCE: Final = 60.0
# The description of a dump with as many PT_LOADs as core reads (elf.MAX_PHNUM) is 55 MB.
MAX_JSON: Final = 128 << 20
# Four times the text that a server reads of a log (core's dmesg.MAX_TEXT), as it comes when all of it is escaped.
MAX_LOG: Final = 96 << 20
# What may wait in memory of a body: the socket is read in steps of 256 KiB at most.
BUFFER: Final = 512 << 10


class Session:
    """Entered with ``async with``; every method raises errors of farcore alone, each with a sentence.

    ``silence``: after so many seconds without a byte the server is given up.
    """

    def __init__(self, server: ServerUrl, credentials: Credentials, *, silence: float = SILENCE) -> None:
        if server.scheme == "http" and credentials.tls_only:
            raise SettingsError(f"--cacert and --cert are for TLS: write https://{server.place}, or leave them out")
        self.server, self.credentials, self.silence = server, credentials, silence
        self.context = credentials.ssl_context() if server.scheme == "https" else None

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": f"farcore/{__version__}", "Accept-Encoding": "identity"}
        if self.credentials.token:
            headers["Authorization"] = f"Bearer {self.credentials.token}"
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.context) if self.context else None,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=self.silence),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=BUFFER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def dumps(self) -> list[dict[str, Any]]:
        """The server's list, as it came."""
        found = (await self._json("/v1/dumps")).get("dumps")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ProtocolError(f"{self.server} has no list of dumps; is this the URL of a farcored?")
        return found

    async def describe(self, dump: DumpUrl) -> dict[str, Any]:
        """The Dump, as it came."""
        return await self._json(dump.path)

    async def memory_map(self, dump: DumpUrl, etag: str, sink: Callable[[MapRun], object]) -> None:
        """Give ``sink`` every run of the dump's memory, as they come: minutes, where a large dump is read for it."""
        reader = MapReader()
        async with self._answer("GET", f"{dump.path}/map", {"If-Match": etag}) as answer:
            await self._demand_success(answer)
            received = 0
            with translated(self.server):
                while piece := await answer.content.readany():
                    received += len(piece)
                    for run in reader.feed(piece):
                        sink(run)
        if not reader.whole:
            raise CutError("the connection was cut", received=received, length=received + 1)

    async def dmesg(self, dump: DumpUrl) -> str:
        """The kernel log, as it came."""
        async with self._answer("GET", f"{dump.path}/dmesg") as answer:
            await self._demand_success(answer)
            if answer.content_type != "text/plain":
                raise ProtocolError(f"{self.server} has no kernel log as text; is this the URL of a farcored?")
            return (await self._body(answer, MAX_LOG)).decode("utf-8", "replace")

    async def manifest(self, dump: DumpUrl, etag: str | None, *, known: bool = False) -> dict[str, Any]:
        """The manifest, as it came; ``known``: no more than there is already. SourceChangedError unless it is of ``etag``."""
        return await self._json(f"{dump.path}/manifest{'?known' if known else ''}", {"If-Match": etag} if etag else {})

    async def verified(self, dump: DumpUrl, etag: str) -> None:
        """Say that a proven copy is here."""
        body = json.dumps({"etag": etag}).encode()
        async with self._answer("POST", f"{dump.path}/verified", {"Content-Type": "application/json"}, body) as answer:
            await self._demand_success(answer)

    async def profile(self, build: str) -> Profile | None:
        """What sessions on this kernel build read; None where nobody has said; BadProfileError for what is none."""
        async with self._answer("GET", f"/v1/profiles/{build}") as answer:
            if answer.status == 404:
                return None
            await self._demand_success(answer)
            return Profile.parse(await self._body(answer, MAX_PROFILE))

    async def teach(self, build: str, profile: Profile) -> None:
        """Merge what this session read into what is known."""
        json_body = {"Content-Type": "application/json"}
        async with self._answer("PUT", f"/v1/profiles/{build}", json_body, profile.pack()) as answer:
            await self._demand_success(answer)

    async def head(self, path: str, space: Space) -> Resource:
        """Size and ETag of the byte resource at ``path``."""
        async with self._answer("HEAD", path) as answer:
            if answer.status == 200:
                return partial.resource(answer.headers)
        # An answer to HEAD has no words; the same question as GET has.
        async with self._answer("GET", path, {"Range": "bytes=0-0"}) as answer:
            await self._demand_success(answer, space)
            raise ProtocolError(f"{self.server} has no answer to HEAD {path}; is something between here and farcored?")

    async def read(self, path: str, space: Space, extent: Extent, version: Resource, sink: Sink) -> None:
        """Give ``sink`` exactly the bytes of ``extent``, in order and pieces; CutError if fewer come.

        FaultError for what is not mapped, SourceChangedError if the resource is no longer this version.
        """
        last = extent.offset + extent.length - 1
        asked = {"Range": f"bytes={extent.offset}-{last}", "If-Match": version.etag}
        async with self._answer("GET", path, asked) as answer:
            await self._demand_success(answer, space, extent.length)
            partial.demand(answer.status, answer.headers, extent, version)
            received = 0
            while piece := await self._piece(answer, received, extent.length):
                received += len(piece)
                if received > extent.length:
                    raise ProtocolError(f"more came than the {extent.length:,} bytes that were asked for; is this a farcored?")
                sink(piece)
        if received < extent.length:
            raise CutError("the connection was cut", received=received, length=extent.length)

    @asynccontextmanager
    async def plain(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of any server to a GET, whatever it is; BusyError where the same may do later."""
        async with self._answer("GET", path, headers) as answer:
            demand_idle(answer.status, answer.headers, self.server)
            yield answer

    async def pieces(self, answer: aiohttp.ClientResponse, length: int) -> AsyncIterator[bytes]:
        """The body as it comes, until it ends or is cut; CutError after ``silence``. ``length`` is for its sentence."""
        received = 0
        while piece := await self._piece(answer, received, length):
            received += len(piece)
            yield piece

    async def _piece(self, answer: aiohttp.ClientResponse, received: int, length: int) -> bytes:
        # Empty at the end, whether the body was whole or not: the caller counts.
        try:
            return await answer.content.readany()
        except TimeoutError as error:
            raise CutError(f"the server was silent for {self.silence:g} s", received=received, length=length) from error
        except (aiohttp.ClientError, OSError):
            return b""

    async def _json(self, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        async with self._answer("GET", path, {"Accept": "application/json", **headers}) as answer:
            await self._demand_success(answer)
            return members(await self._body(answer, MAX_JSON), self.server, path)

    async def _demand_success(self, answer: aiohttp.ClientResponse, space: Space | None = None, length: int = 0) -> None:
        if 300 <= answer.status < 400:
            raise redirected(answer.headers, self.server)
        if answer.status >= 400:
            said = answer.headers.get("Content-Type", "")
            body = await self._body(answer, MAX_PROBLEM)
            token = self.credentials.token is not None
            raise refusal(answer.status, said, body, self.server, space=space, length=length, token=token)

    async def _body(self, answer: aiohttp.ClientResponse, most: int) -> bytes:
        body = bytearray()
        with translated(self.server):
            while piece := await answer.content.readany():
                body += piece
                if len(body) > most:
                    raise ProtocolError(f"{self.server} answered with more than {most >> 10:,} KiB; is this a farcored?")
        return bytes(body)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(f"{self.server}{path}", encoded=True)
        # Not around the yield: an error of the caller's own (a full disk) is not the server's.
        with translated(self.server):
            answer = await self._client.request(method, url, headers=headers, data=body, allow_redirects=False)
        async with answer:
            yield answer
