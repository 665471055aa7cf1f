"""farcore verify: is this file that dump?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from farcore import manifest
from farcore.errors import FarcoreError
from farcore_client import proof
from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.loop import run
from farcore_client.output import OutputError, say
from farcore_client.printable import readable
from farcore_client.proof import DiffersError, Manifest
from farcore_client.session import Session

# Seconds between two questions while the server makes digests: 4 MiB take it 2 ms, or what its disk needs.
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 2.0


@click.command(epilog="\b\nExample: farcore verify http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d vmcore")
@click.argument("url", metavar="DUMPURL")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@with_credentials
def command(url: str, file: Path, credentials: Credentials) -> None:
    """Compare FILE with the dump's vmcore, by the blake3 digests of its chunks; exit status 1 if they differ.

    The server makes them when they are asked for, at the speed of its disk, and keeps them.
    """
    if not manifest.has_digests():
        raise click.ClickException("the Python package blake3 is not installed here: `pip install blake3`")
    dump = DumpUrl.parse(url)
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        found = run(_verified(dump, file, size, lambda at, length: os.pread(fd, length, at), credentials))
    except OSError as error:
        if isinstance(error, FarcoreError):
            raise
        raise OutputError(f"{file} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    say(f"{file} is {dump}: {readable(size)}, all {len(found.digests):,} chunks are the same")


async def _verified(
    dump: DumpUrl, file: Path, size: int, read: Callable[[int, int], bytes], credentials: Credentials
) -> Manifest:
    async with Session(dump.server, credentials) as session:
        found = proof.parsed(await session.manifest(dump, None))
        if found.size != size:
            raise DiffersError(f"{file} is not the dump: it has {size:,} bytes, and the dump {found.size:,}")
        done, pause = 0, FIRST_PAUSE
        while True:
            different = await proof.compare(read, size, found.digests, done)
            if different is not None:
                raise DiffersError(f"{file} is not the dump: they differ {proof.place(different, size)}")
            done = len(found.digests)
            if found.complete:
                break
            if found.trouble:
                raise DiffersError(f"the server cannot make all digests: {found.trouble}; {done:,} chunks are the same")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            found = proof.parsed(await session.manifest(dump, found.etag))
        if credentials.token:
            await session.verified(dump, found.etag)
        return found
