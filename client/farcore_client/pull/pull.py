"""Pull: from a URL to a file, by whichever way the server has."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from farcore.batch import Space
from farcore.elf import Elf
from farcore.errors import BadDumpError, SourceChangedError
from farcore.source import Extent
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.output import OutputError
from farcore_client.partial import Resource
from farcore_client.pull.batches import Batches
from farcore_client.pull.chunks import PAGE
from farcore_client.pull.journal import Subject
from farcore_client.pull.limit import Limit
from farcore_client.pull.pace import Pace, Wish
from farcore_client.pull.partfile import PartFile, demand_free
from farcore_client.pull.progress import Quiet
from farcore_client.pull.transfer import Transfer
from farcore_client.session import Session

# Seconds of silence after which a connection is given up, and another is made.
SILENCE: Final = 20.0
# Of a dump's start, to see where its pages begin: a thousand program headers.
HEAD: Final = 64 << 10


async def pull_dump(
    dump: DumpUrl,
    space: Space,
    final: Path,
    credentials: Credentials,
    watcher: Quiet,
    *,
    jobs: int,
    rate: float | None,
    level: Wish,
) -> None:
    """Pull /vmcore or /stored of ``dump`` to ``final``."""
    demand_free(final)
    began = time.monotonic()
    async with Session(dump.server, credentials, silence=SILENCE) as session:
        asked = time.monotonic()
        path = f"{dump.path}/{space}"
        version = await session.head(path, space)
        asked, round_trip = time.monotonic(), time.monotonic() - asked
        shift = await _shift(session, path, space, version)
        round_trip = min(round_trip, time.monotonic() - asked)
        part = PartFile.open(final, Subject(path, version.etag, version.size))
        try:
            way = Batches(session, dump, space, version, Pace(level, round_trip), Limit(rate))
            transfer = Transfer(part, way, watcher, space=space, shift=shift, jobs=jobs)
            resumed = transfer.chunks.proved
            watcher.start(url=str(dump), file=str(final), path=way.name, size=version.size, etag=version.etag, resumed=resumed)
            try:
                await transfer.run()
            except SourceChangedError:
                raise _replaced(final) from None
            part.publish()
        finally:
            part.close()
    facts = asdict(transfer.tally) | {"size": version.size, "resumed": resumed, "path": way.name}
    watcher.done(file=str(final), seconds=round(time.monotonic() - began, 3), **facts)


async def _shift(session: Session, path: str, space: Space, version: Resource) -> int:
    """Where in a page's length the pages of memory begin, by most of the bytes of the first program headers; else 0."""
    start = bytearray()
    if version.size:
        await session.read(path, space, Extent(0, min(HEAD, version.size)), version, start.extend)
    return shift_of(bytes(start))


def shift_of(start: bytes) -> int:
    """The same, by the first bytes of an ELF file."""
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
