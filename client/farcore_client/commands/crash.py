"""farcore crash: crash on a dump that stays where it is."""

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
    epilog="\b\nExamples: farcore crash http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d\n"
    "          farcore crash http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d vmlinux -- -s -i commands",
)
@click.argument("url", metavar="DUMPURL")
@click.argument("symbols", metavar="[VMLINUX]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--door", type=click.Choice(["fuse", "remote"]), help="How crash reads the dump; by default fuse where that can be had."
)
@with_cache
@with_credentials
def command(url: str, symbols: Path | None, door: str | None, cache: CacheDir | None, credentials: Credentials) -> int:
    """Analyse a dump with crash, which reads only what it needs.

    Without VMLINUX it is looked for in /usr/lib/debug, then asked of debuginfod. The dump is mounted where /dev/fuse can be
    used; else crash reads it through its own remote protocol. The exit status is crash's.
    """
    options = passed_on()
    opening = Opening(DumpUrl.parse(url), credentials, cache=cache)
    from farcore_client.doors.crash import analysis  # late: the server answers while it is imported

    return analysis.run(opening, symbols, door, options)
