"""POST /pages: thousands of ranges answered in one round trip, as frames that are sent while the next are gathered.

What is in memory is read by the loop itself (preadv2 with RWF_NOWAIT: 1 us a page), what is not by a thread; zstd is a
thread's as well. At most AHEAD frames are under way at a time, so that a reader, however slow, costs those and no more. As
with every body: bytes are read, then the file is looked at, then they are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from farcore import frames, gather
from farcore.batch import MAX_BODY, MAX_ITEMS, MAX_TOTAL, SPACES, Batch, Space
from farcore.errors import FarcoreError, FrameError
from farcore.gather import Draft, Gathered, Plan
from farcore.layout import Layout
from farcore.repeats import Repeats
from farcore.room import room
from farcore_server import conditions, holes
from farcore_server.catalogue import Catalogue
from farcore_server.conditions import PreconditionFailed
from farcore_server.decoding import SHORT
from farcore_server.dump import Dump, Resource
from farcore_server.framesender import FrameSender
from farcore_server.lookup import lookup
from farcore_server.metrics import Metrics
from farcore_server.opened import Opened
from farcore_server.problem import Problem
from farcore_server.upload import upload

# Reads and holes of an answer. 1 GiB of a dump of 70,000 PT_LOADs has 140,000 at most.
MAX_CELLS: Final = 1 << 20
# Frames under way where they are compressed: one is sent, and the two cores of a small machine have one each.
AHEAD: Final = 3
# More items are a thread's work: these take 1 ms.
_MANY_ITEMS: Final = 1 << 13

# Answers of a worker at a time in which repeated pages are looked for: each has a table of up to 6 MiB.
MAX_TABLES: Final = 8

# Data that the loop compresses itself: handing it to a thread would take as long.
SMALL: Final = 16 << 10

# Threads that wait for disks, and threads that compress: neither kind waits for the other.
_COLD: Final = ThreadPoolExecutor(8, thread_name_prefix="pages")
_ZSTD: Final = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="zstd")

# A frame: its head with the table, and its data as stored.
_Packed = tuple[bytes, bytes | memoryview]


class Batches:
    """The handler, over one catalogue."""

    def __init__(self, catalogue: Catalogue, metrics: Metrics) -> None:
        self.catalogue, self.metrics = catalogue, metrics
        self._tables = 0

    async def pages(self, request: web.Request) -> web.StreamResponse:
        """Every item of the batch, in its order; ?normalised: of the vmcore in the kernel's own layout."""
        opened = await lookup(self.catalogue, request.match_info["id"])
        batch = await _batch(request)
        _demand_match(request, opened.dump)
        normalised = "normalised" in request.query
        layouts = {
            space: opened.over_either(await opened.layout(name), name)
            for space in _spaces(batch)
            if (name := _resource(space, normalised=normalised))
        }
        if batch.total >= holes.WORTH and opened.files.memory is None:
            layouts = await asyncio.to_thread(_with_holes, opened.source.fd, batch, layouts)
        plan = await asyncio.to_thread(Plan, batch, layouts) if len(batch) > _MANY_ITEMS else Plan(batch, layouts)
        if plan.cells > MAX_CELLS:
            raise _too_much(f"These ranges are {plan.cells:,} pieces of this dump; an answer has at most {MAX_CELLS:,}")
        head = layouts["vmcore"].head if "vmcore" in layouts else b""
        # Repeats may be named and need not be; to compare with what was sent, decompressed pages would have to be waited for.
        if not batch.repeats or self._tables >= MAX_TABLES or opened.files.memory is not None:
            return await self._send(request, _Work(opened, head, batch.level), batch, plan)
        self._tables += 1
        try:
            return await self._send(request, _Work(opened, head, batch.level, Repeats(batch.total)), batch, plan)
        finally:
            self._tables -= 1

    async def _send(self, request: web.Request, work: _Work, batch: Batch, plan: Plan) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": frames.MEDIA_TYPE,
                "ETag": work.opened.dump.etag,
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            }
        )
        await response.prepare(request)
        before = request.writer.output_size
        self.metrics.streams += 1
        try:
            await _stream(FrameSender(request, response), work, batch, plan)
        except FarcoreError:
            self.metrics.cut += 1
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            self.metrics.streams -= 1
            self.metrics.count_sent(request.match_info.route.name or "", request.writer.output_size - before)
        return response


async def _stream(sender: FrameSender, work: _Work, batch: Batch, plan: Plan) -> None:
    """The whole answer; each frame is gathered while those before it are sent."""
    under_way: deque[asyncio.Task[_Packed]] = deque()
    ahead = 1 if work.level is None else AHEAD
    count = 0
    await sender.send(frames.opening(batch.total))
    try:
        for draft in plan:
            under_way.append(asyncio.create_task(work.frame(draft)))
            count += 1
            if len(under_way) == ahead:
                await sender.send(*await under_way.popleft())
        while under_way:
            await sender.send(*await under_way.popleft())
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    await sender.end(frames.closing(batch.total, count))


@dataclass(frozen=True, slots=True)
class _Work:
    """What makes a draft into a frame; ``head`` is what was composed in front of the vmcore."""

    opened: Opened
    head: bytes
    level: int | None
    repeats: Repeats | None = None

    async def frame(self, draft: Draft) -> _Packed:
        """The draft's frame, its bytes of one version of the file: SourceChangedError otherwise."""
        loop = asyncio.get_running_loop()
        gathered = self._gathered_now(draft)
        if gathered is None:
            gathered = await loop.run_in_executor(_COLD, self._fetch, draft)
        self.opened.demand_unchanged()
        runs, content = self._reduced(draft, gather.without_zeros(draft.at, gathered))
        if self.level is None or len(content) < SMALL:
            return frames.frame(draft.at, runs, content, self.level)
        return await loop.run_in_executor(_ZSTD, frames.frame, draft.at, runs, content, self.level)

    def _reduced(self, draft: Draft, gathered: Gathered) -> Gathered:
        return gathered if self.repeats is None else self.repeats.named(draft, gathered, self._same)

    def _same(self, offset: int, content: memoryview) -> bool:
        """Whether the file has these bytes at ``offset``; False where it would have to be waited for."""
        found = bytearray(len(content))
        flags = 0 if self.opened.residency.always else os.RWF_NOWAIT
        with contextlib.suppress(OSError):
            return os.preadv(self.opened.source.fd, [found], offset, flags) == len(content) and found == content.tobytes()
        return False

    def _gathered_now(self, draft: Draft) -> Gathered | None:
        """What needs no waiting; None where anything would wait, or fail."""
        residency = self.opened.residency
        if self.opened.files.memory is not None:
            return self._decoded_now(draft)
        if residency.blind and draft.reads:
            return None
        fd, flags = self.opened.source.fd, 0 if residency.always else os.RWF_NOWAIT
        content = room(draft.raw)
        at = 0
        try:
            for offset, length in draft.reads:
                end = at + length
                if offset < 0:
                    content[at:end] = memoryview(self.head)[offset - gather.HEAD :][:length]
                elif os.preadv(fd, [content[at:end]], offset, flags) != length:
                    return None
                at = end
        except OSError:
            return None
        return Gathered(draft.runs, content)

    def _decoded_now(self, draft: Draft) -> Gathered | None:
        if draft.raw > SHORT or self.opened.either is None:
            return None
        try:
            return gather.collect(self.opened.either, draft, self.head)
        except BlockingIOError:
            return None

    def _fetch(self, draft: Draft) -> Gathered:
        # All reads are announced before the first is waited for: a disk has them done in its own order, many at a time.
        for offset, length in draft.reads if self.opened.files.memory is None else ():
            if offset >= 0:
                with contextlib.suppress(OSError):
                    os.posix_fadvise(self.opened.source.fd, offset, length, os.POSIX_FADV_WILLNEED)
        return gather.collect(self.opened.files.either, draft, self.head)


async def _batch(request: web.Request) -> Batch:
    """The request's batch, within its bounds."""
    if request.content_type != frames.MEDIA_TYPE or "Content-Encoding" in request.headers:
        detail = f"Send the batch as `Content-Type: {frames.MEDIA_TYPE}`, without a Content-Encoding."
        raise Problem(415, "not-a-batch", "Not a batch of pages", detail, headers={"Accept-Post": frames.MEDIA_TYPE})
    body = await upload(request, MAX_BODY)
    if body is None:
        raise _too_much(f"A batch has at most {MAX_ITEMS:,} items, in {MAX_BODY:,} bytes")
    try:
        batch = Batch.parse(body)
    except FrameError as error:
        members = {"versions": [frames.VERSION]}
        raise Problem(400, "bad-batch", "Not a batch that can be answered", f"{error}.", members=members) from error
    if batch.total > MAX_TOTAL:
        raise _too_much(f"These ranges are {batch.total:,} bytes; an answer has at most {MAX_TOTAL:,}")
    return batch


def _too_much(reason: str) -> Problem:
    return Problem(413, "batch-too-large", "Too much for one batch", f"{reason}; ask in several batches.")


def _demand_match(request: web.Request, dump: Dump) -> None:
    outcome = conditions.evaluate("POST", request.headers, dump.etag, dump.identity.modified, int(time.time()))
    if isinstance(outcome, PreconditionFailed):
        detail = f"{outcome.field} does not hold: the dump's ETag is {dump.etag}."
        raise Problem(412, "changed", "Precondition failed", detail, dump=dump.id, headers={"ETag": dump.etag})


def _resource(space: Space, *, normalised: bool) -> Resource:
    return "normalised" if normalised and space == "vmcore" else space


def _with_holes(fd: int, batch: Batch, layouts: dict[Space, Layout]) -> dict[Space, Layout]:
    found = {}
    for space, layout in layouts.items():
        rows = batch.space == SPACES.index(space)
        low, high = int(batch.start[rows].min()), int((batch.start[rows] + batch.length[rows]).max())
        found[space] = holes.shown(layout, fd, low, high)
    return found


def _spaces(batch: Batch) -> list[Space]:
    return [space for code, space in enumerate(SPACES) if (batch.space == code).any()]
