"""farcore dmesg: the kernel log of a dump."""

from __future__ import annotations

import click

from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.loop import run
from farcore_client.output import write_text
from farcore_client.printable import printable
from farcore_client.session import Session


@click.command(epilog="\b\nExample: farcore dmesg http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d | tail -n 50")
@click.argument("url", metavar="DUMPURL")
@with_credentials
def command(url: str, credentials: Credentials) -> None:
    """Write the kernel log of a dump to stdout, as `makedumpfile --dump-dmesg` would.

    A log that is not the dump's own, but lay as a file beside it, says so in its first line, after a #.
    """
    write_text(shown(run(_log(DumpUrl.parse(url), credentials))))


async def _log(dump: DumpUrl, credentials: Credentials) -> str:
    async with Session(dump.server, credentials) as session:
        return await session.dmesg(dump)


def shown(log: str) -> str:
    """The log with tabs and line ends as they are, and nothing else that a terminal would obey."""
    if log.isascii() and log.replace("\n", "").replace("\t", "").isprintable():
        return log
    return "\n".join("\t".join(printable(part) for part in line.split("\t")) for line in log.split("\n"))
