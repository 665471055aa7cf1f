"""farcore drgn: drgn on a dump that stays where it is."""

from __future__ import annotations

from pathlib import Path

import click

from farcore_client.cachedir import CacheDir
from farcore_client.commands import with_cache, with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.opening import Opening
from farcore_client.passing import Passing, passed_on


@click.command(
    cls=Passing,
    epilog="\b\nExamples: farcore drgn http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d\n"
    "          farcore drgn http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d -s vmlinux -- script.py ARG",
)
@click.argument("url", metavar="DUMPURL")
@click.option("-s", "--symbols", type=click.Path(path_type=Path), metavar="VMLINUX", help="The kernel's symbols, with DWARF.")
@with_cache
@with_credentials
def command(url: str, symbols: Path | None, cache: CacheDir | None, credentials: Credentials) -> int:
    """Debug a dump with drgn, at its prompt or with a script: memory comes page by page, as it is read.

    Without -s the vmlinux is looked for in /usr/lib/debug, then asked of debuginfod.
    """
    options = passed_on()
    opening = Opening(DumpUrl.parse(url), credentials, cache=cache)
    from farcore_client.doors.drgn import session  # late: the server answers while it is imported

    return session.run(opening, symbols, options)
