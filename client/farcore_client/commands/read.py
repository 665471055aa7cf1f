"""farcore read: bytes of a dump, by file offset or physical address."""

from __future__ import annotations

import click

from farcore.errors import FaultError, Space
from farcore.source import Extent
from farcore_client.commands import number, with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.loop import run
from farcore_client.output import Write, output
from farcore_client.session import Session

_WHY = {
    "absent": "the dump describes nothing there",
    "excluded": "the dump's writer left it out",
    "unreadable": "the server's storage failed there",
}


@click.command(
    epilog="\b\nExamples: farcore read http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d --offset 0 --length 64 | xxd\n"
    "          farcore read http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d --physical 0x1000 --length 0x1000 -o page"
)
@click.argument("url", metavar="DUMPURL")
@click.option("--physical", callback=number, metavar="ADDR", help="Where to start: a physical address.")
@click.option("--offset", callback=number, metavar="N", help="Where to start: a byte of the vmcore file.")
@click.option("--length", callback=number, metavar="N", required=True, help="How many bytes.")
@click.option("-o", "--output", "to", metavar="FILE", help="Write to FILE, which is never replaced; - is stdout.")
@with_credentials
def command(url: str, physical: int | None, offset: int | None, length: int, to: str | None, credentials: Credentials) -> None:
    """Write bytes of a dump to stdout, all that were asked for or an error.

    ADDR and N are decimal, or hexadecimal after 0x. A hole in physical memory is an error, never zeros.
    """
    dump = DumpUrl.parse(url)
    space: Space = "physical" if offset is None else "vmcore"
    start = physical if offset is None else offset
    if start is None or (physical is not None and offset is not None):
        raise click.UsageError("Give either --physical ADDR or --offset N.")
    if length == 0:
        raise click.UsageError("Give a --length of 1 or more.")
    try:
        with output(to) as write:
            run(_read(dump, space, Extent(start, length), write, credentials))
    except FaultError as fault:
        raise click.ClickException(_sentence(fault, start, dump)) from fault


async def _read(dump: DumpUrl, space: Space, extent: Extent, write: Write, credentials: Credentials) -> None:
    path = f"{dump.path}/vmcore" if space == "vmcore" else f"{dump.path}/memory/physical"
    async with Session(dump.server, credentials) as session:
        version = await session.head(path, space)
        if extent.offset + extent.length > version.size:
            raise FaultError(address=max(extent.offset, version.size), length=extent.length, space=space, kind="absent")
        await session.read(path, space, extent, version, write)


def _sentence(fault: FaultError, start: int, dump: DumpUrl) -> str:
    there = fault.address - start
    then = f"--length {there:#x} stops before it" if there > 0 else f"`farcore info {dump}` shows what there is"
    if fault.space == "vmcore" and fault.kind == "absent":
        return f"the vmcore ends before byte {fault.address:,}: {then}"
    where = f"byte {fault.address:,} of the vmcore" if fault.space == "vmcore" else f"physical address {fault.address:#x}"
    return f"{where} is {fault.kind} ({_WHY[fault.kind]}): {then}"
