"""Pull: from a URL to a file, by whichever way the server has."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from farcore import manifest
from farcore.batch import Space
from farcore.elf import Elf
from farcore.errors import BadDumpError, FarcoreError, SourceChangedError
from farcore_client import proof
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import ServerUrl
from farcore_client.errors import BusyError, ProtocolError, RefusedError, UnreachableError
from farcore_client.output import OutputError
from farcore_client.plainurl import PlainUrl
from farcore_client.pull import ranges
from farcore_client.pull.batches import Batches
from farcore_client.pull.beginning import HEAD, SILENCE, Beginning, First
from farcore_client.pull.chunks import PAGE
from farcore_client.pull.journal import Subject
from farcore_client.pull.limit import Limit
from farcore_client.pull.pace import Pace, Wish
from farcore_client.pull.partfile import PartFile, demand_free
from farcore_client.pull.progress import Quiet
from farcore_client.pull.ranges import Ranges, Version
from farcore_client.pull.transfer import LAST_PAUSE, PATIENCE, Transfer, Way
from farcore_client.refusal import MAX_PROBLEM

if TYPE_CHECKING:
    from farcore_client.session import Session


class NamedWay(Way, Protocol):
    """A way that a person is told of."""

    name: str


@dataclass(frozen=True, slots=True)
class Request:
    """How to pull: to which file, over how many connections, at how many bytes a second at most, at which zstd level.

    ``normalised``: /vmcore in the layout of /proc/vmcore.
    """

    final: Path
    jobs: int
    rate: float | None
    level: Wish


async def pull_dump(beginning: Beginning, request: Request, watcher: Quiet) -> None:
    """Pull what was begun."""
    demand_free(request.final)
    dump, space, path, credentials = beginning.dump, beginning.space, beginning.path, beginning.credentials
    with beginning.lines as lines:
        version, start, round_trip = await _begin(beginning, watcher)
        pages = f"{dump.path}/pages{beginning.query}"
        way = Batches(lines, pages, space, version, Pace(request.level, round_trip), Limit(request.rate))
        subject = Subject(path, version.etag, version.size)

        async def proved(part: PartFile) -> int:
            # What the server knows already, and no more: nothing is read there for this.
            if space != "vmcore" or beginning.query or not manifest.has_digests():
                return 0
            known = f"{dump.path}/manifest?known"
            try:
                found = proof.parsed(await lines.run(lambda line: line.json(known, {"If-Match": version.etag})))
            except (RefusedError, ProtocolError, UnreachableError, SourceChangedError):
                return 0  # of a dump that has just been replaced as well: all of the one before is here, and checked
            different = await proof.compare(part.read, version.size, found.digests)
            if different is not None:
                raise OutputError(
                    f"what came differs from the server's manifest, {proof.place(different, version.size)}: a disk is bad, here"
                    f" or there; remove {request.final}.part and pull again"
                )
            return len(found.digests)

        try:
            await fetched(str(dump), subject, way, request, watcher, space=space, shift=shift_of(start), proved=proved)
        except (ProtocolError, RefusedError) as error:
            # Something between here and farcored, or an older farcored, has no batches: what is there is gone on with.
            if isinstance(error, BusyError) or not _without_batches(error):
                raise
            watcher.instead(error)
            plain = Version(version.size, version.etag, "", ranged=True)
            async with _session(dump.server, credentials) as session:
                await _pull_ranges(session, str(dump), path, path, plain, request, watcher)
        if credentials.token:
            # The copy is whole whether or not the server can take note of it.
            said = json.dumps({"etag": version.etag}).encode()
            told = {"Content-Type": "application/json"}
            with suppress(FarcoreError):
                await lines.run(lambda line: line.ask("POST", f"{dump.path}/verified", told, said).read(MAX_PROBLEM))


def _session(server: ServerUrl, credentials: Credentials) -> Session:
    # Late: what it imports takes longer than many a dump to come, and from a farcored nothing comes by it.
    from farcore_client.session import Session

    return Session(server, credentials, silence=SILENCE)


async def pull_plain(url: PlainUrl, request: Request, credentials: Credentials, watcher: Quiet) -> None:
    """Pull what any HTTP server has at ``url``; a token is for farcored alone and is not shown."""
    demand_free(request.final)
    async with _session(url.server, replace(credentials, token=None)) as session:
        async with session.plain(url.target, {"Range": f"bytes=0-{HEAD - 1}"}) as answer:
            found = ranges.version(answer.status, answer.headers)
        await _pull_ranges(session, str(url), url.path, url.target, found, request, watcher)


async def _pull_ranges(
    session: Session, shown: str, resource: str, target: str, found: Version, request: Request, watcher: Quiet
) -> None:
    # Without a validator no later pull can know whether it is the same file.
    subject = Subject(resource, found.etag or found.modified or secrets.token_hex(8), found.size)
    way = Ranges(session, target, found, Limit(request.rate))
    await fetched(shown, subject, way, request if found.ranged else replace(request, jobs=1), watcher, space="stored")


def _without_batches(error: ProtocolError | RefusedError) -> bool:
    return isinstance(error, ProtocolError) or (error.status in (404, 405, 415, 501) and error.slug != "no-such-dump")


async def _nothing(part: PartFile) -> int:
    return 0


async def fetched(
    url: str,
    subject: Subject,
    way: NamedWay,
    request: Request,
    watcher: Quiet,
    *,
    space: Space,
    shift: int = 0,
    proved: Callable[[PartFile], Awaitable[int]] = _nothing,
) -> None:
    """The subject's file, whole and under its name, by ``way``; OutputError, or the error that the transfer ended with."""
    began, final = time.monotonic(), request.final
    part = PartFile.open(final, subject)
    try:
        transfer = Transfer(part, way, watcher, space=space, shift=shift, jobs=request.jobs)
        facts = {"file": str(final), "path": way.name, "size": subject.size, "resumed": transfer.chunks.proved}
        watcher.start(url=url, etag=subject.etag, **facts)
        try:
            await transfer.run()
        except SourceChangedError:
            raise _replaced(final) from None
        digests = await proved(part)
        part.publish()
    finally:
        part.close()
    watcher.done(seconds=round(time.monotonic() - began, 3), digests=digests, **facts, **asdict(transfer.tally))


async def _begin(beginning: Beginning, watcher: Quiet) -> First:
    """A server that is not ready is waited for."""
    give_up, asked = time.monotonic() + PATIENCE, beginning.first()
    while True:
        try:
            return await asked
        except BusyError as error:
            pause = min(max(error.after, 1.0), LAST_PAUSE)
            if time.monotonic() + pause > give_up:
                raise
            watcher.retry(error, pause)
            await asyncio.sleep(pause)
            asked = beginning.again()


def shift_of(start: bytes) -> int:
    """Where in a page's length the pages of memory begin, by the first headers of an ELF; else 0."""
    try:
        loads = Elf.glance(start).loads
    except BadDumpError:
        return 0
    begins = ((loads["offset"] - loads["paddr"]) % np.uint64(PAGE)).astype(np.int64)
    weights = np.bincount(begins, weights=loads["filesz"].astype(np.float64))
    return int(weights.argmax()) if len(weights) else 0


def _replaced(final: Path) -> OutputError:
    return OutputError(
        f"the dump was replaced or removed on the server, and two versions are never mixed: remove {final}.part to pull what"
        " is there now, or give another name (-o)"
    )
