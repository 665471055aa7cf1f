"""Batches: the way over POST /pages: zeros and repeated pages are named and not sent, data is checked frame by frame."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from typing import Final

from farcore import frames
from farcore.batch import Batch, Item
from farcore.batch import Space as Asked
from farcore.errors import SourceChangedError
from farcore_client.dumpurl import DumpUrl
from farcore_client.errors import CutError, ProtocolError
from farcore_client.partial import Resource
from farcore_client.pull.handover import Handover
from farcore_client.pull.landing import Landing
from farcore_client.pull.limit import Limit
from farcore_client.pull.pace import Pace
from farcore_client.session import Session

# Bytes of the resource in one batch: repeated pages are found within one, so it should be large ...
LARGEST: Final = 1 << 30
# ... but where there is more than one connection's worth, each of them gets its share.
SHARE: Final = 256 << 20
# While the level is still looked for.
TRIAL: Final = 64 << 20


class Batches:
    """Fetches works of one version of one dump."""

    name = "pages"

    def __init__(self, session: Session, dump: DumpUrl, space: Asked, version: Resource, pace: Pace, limit: Limit) -> None:
        self._session, self._dump, self._space, self._version = session, dump, space, version
        self.pace, self._limit = pace, limit

    def most(self, missing: int, jobs: int) -> int:
        """Bytes of the next work."""
        return TRIAL if self.pace.trying else min(LARGEST, max(SHARE, missing // jobs))

    async def fetch(self, landing: Landing, threads: Executor) -> None:
        """All that is left of its work; what has landed when an error comes is there and checked."""
        level = self.pace.wanted()
        batch = Batch.of([Item(self._space, *each) for each in landing.rest()], level, repeats=True)
        headers = {"Content-Type": frames.MEDIA_TYPE, "If-Match": self._version.etag}
        began = time.monotonic()
        decoder = frames.Decoder(batch.total, zstd=level is not None, repeats=True)
        async with self._session.exchange("POST", f"{self._dump.path}/pages", headers, batch.pack()) as answer:
            _demand_pages(answer.status, answer.content_type, answer.headers.get("ETag"), self._version)
            async with Handover(threads, lambda piece: landing.take(decoder.feed(piece))) as handover:
                async for piece in self._session.pieces(answer, batch.total):
                    landing.tally.wire += len(piece)
                    await handover.give(piece)
                    await self._limit.spend(len(piece))
        if not decoder.complete:
            raise CutError("the connection was cut", received=landing.at, length=batch.total)
        self.pace.record(level, batch.total, time.monotonic() - began)


def _demand_pages(status: int, content_type: str, etag: str | None, version: Resource) -> None:
    if status != 200 or content_type != frames.MEDIA_TYPE:
        raise ProtocolError(f"a batch of pages was answered with {status} and {content_type}; is this the URL of a farcored?")
    if etag != version.etag:
        raise SourceChangedError("the dump's file has changed since it was first looked at")
