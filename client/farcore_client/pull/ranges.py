"""Ranges: the way over plain HTTP ranges, or one stream where a server has none; nothing is checked but what TCP checks.

For whoever serves a file and is no farcored: nginx, an object store, python -m http.server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from farcore.errors import SourceChangedError
from farcore_client.errors import CutError, ProtocolError, RefusedError
from farcore_client.pull.handover import Handover
from farcore_client.pull.landing import Landing
from farcore_client.pull.limit import Limit

if TYPE_CHECKING:
    from farcore_client.session import Session

# Bytes of one request: 16 of them are under way at most, and a cut one costs a megabyte anew.
PIECE: Final = 16 << 20
_STRONG: Final = re.compile(r'"[!#-~]*"')
_RANGE: Final = re.compile(r"bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """A file's size and what tells its versions apart: a strong ETag, else a date, else nothing; ``ranged``: it has ranges."""

    size: int
    etag: str
    modified: str
    ranged: bool

    @property
    def condition(self) -> dict[str, str]:
        """The field that holds a request to this version."""
        if self.etag:
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}

    def demand(self, headers: Mapping[str, str]) -> None:
        """SourceChangedError for an answer of another version, also of a server that passes over conditions."""
        found = _validators(headers)
        if found != (self.etag, self.modified) and any(found):
            raise SourceChangedError("the file has changed on the server since it was first looked at")


def version(status: int, headers: Mapping[str, str]) -> Version:
    """What the answer to a range of the first bytes says of the file; ProtocolError if too little."""
    demand_success(status)
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ProtocolError(f"the server sends the file encoded ({encoding}), not as it is: another URL may have it plain")
    if status == 206:
        found = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None or found[1] != "0":
            raise ProtocolError("the server's answer to a range does not say what it is: pull from another server")
        return Version(int(found[3]), *_validators(headers), ranged=True)
    size = headers.get("Content-Length", "")
    if not re.fullmatch(r"[0-9]{1,20}", size, re.ASCII):
        raise ProtocolError("the server does not say how long the file is, so that its end cannot be told from a cut")
    return Version(int(size), *_validators(headers), ranged=False)


def demand_success(status: int) -> None:
    """RefusedError unless the answer has bytes; SourceChangedError where a condition is false."""
    if status in (404, 410, 412):
        raise SourceChangedError("the file is not, or no longer, there as it was")
    if status not in (200, 206):
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "?"
        hint = {401: ": it wants a login", 403: ": may it be read, and has the link expired?"}.get(status, "")
        raise RefusedError(f"the server answered {status} {phrase}{hint}", status=status)


class Ranges:
    """Fetches works of one version of what is at ``target``."""

    def __init__(self, session: Session, target: str, version: Version, limit: Limit) -> None:
        self._session, self._target, self._version, self._limit = session, target, version, limit
        self.name = "ranges" if version.ranged else "one stream"

    def most(self, missing: int, jobs: int) -> int:
        """Bytes of the next work."""
        return PIECE if self._version.ranged else self._version.size

    async def fetch(self, landing: Landing, threads: Executor) -> None:
        """All that is left of its work."""
        landing.rest()
        first, stop = landing.work.start + landing.at, landing.work.stop
        fields = self._version.condition
        if self._version.ranged:
            fields |= {"Range": f"bytes={first}-{stop - 1}"}
        async with self._session.plain(self._target, fields) as answer:
            demand_success(answer.status)
            self._version.demand(answer.headers)
            skip = self._skip(answer.status, answer.headers, first, stop)
            async with Handover(threads, lambda piece: landing.plain(memoryview(piece))) as handover:
                rest = stop - first
                async for piece in self._session.pieces(answer, stop - first):
                    landing.tally.wire += len(piece)
                    passed = min(skip, len(piece))
                    wanted = piece[passed : passed + rest]
                    skip, rest = skip - passed, rest - len(wanted)
                    if wanted:
                        await handover.give(wanted)
                    await self._limit.spend(len(piece))
                    if not rest:
                        break
        if not landing.complete:
            raise CutError("the connection was cut", received=landing.at, length=landing.work.length)

    def _skip(self, status: int, headers: Mapping[str, str], first: int, stop: int) -> int:
        """Bytes of the answer that come before ``first``."""
        if not self._version.ranged:
            return first
        wanted = f"bytes {first}-{stop - 1}/{self._version.size}"
        if status != 206 or headers.get("Content-Range") != wanted:
            raise ProtocolError("the server sent another range than was asked for: run the command again with --jobs 1")
        return 0


def _validators(headers: Mapping[str, str]) -> tuple[str, str]:
    etag = headers.get("ETag", "")
    return (etag, "") if _STRONG.fullmatch(etag) else ("", headers.get("Last-Modified", "")[:64])
