"""farcore door: only the door, for a tool that is started by hand."""

from __future__ import annotations

import asyncio

import click

from farcore.errors import SettingsError
from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.doors.gdb import launch
from farcore_client.doors.gdb.door import GdbDoor
from farcore_client.dumpurl import DumpUrl
from farcore_client.loop import run
from farcore_client.notice import notice
from farcore_client.output import say
from farcore_client.remote import connect
from farcore_client.target import Target


def _listen(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:1234", ctx, param)
    return host.strip("[]"), int(port)


@click.command(epilog="\b\nExample: farcore door gdb http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d")
@click.argument("tool", metavar="gdb", type=click.Choice(["gdb"]))
@click.argument("url", metavar="DUMPURL")
@click.option(
    "--listen",
    "place",
    callback=_listen,
    default="127.0.0.1:0",
    metavar="HOST:PORT",
    help="Where; port 0 is a free one. Whoever reaches it reads the dump. [127.0.0.1:0]",
)
@with_credentials
def command(tool: str, url: str, place: tuple[str, int], credentials: Credentials) -> None:
    """Open a door to a dump, for a tool that is started by hand, until Ctrl-C.

    It speaks gdb's remote protocol, and prints the lines with which gdb attaches.
    """
    with connect(DumpUrl.parse(url), credentials) as dump:
        run(_serve_gdb(dump.target(), *place))


async def _serve_gdb(target: Target, host: str, port: int) -> None:
    door = GdbDoor(target, notice)
    try:
        async with door.listening(host, port) as chosen:
            shown = f"[{host}]:{chosen}" if ":" in host else f"{host}:{chosen}"
            say(f"The door is open on {shown} until Ctrl-C. In gdb:\n")
            for line in launch.setup(target, shown):
                say(f"    {line}")
            await asyncio.Event().wait()
    except OSError as error:
        raise SettingsError(f"--listen {host}:{port}: {error.strerror or error}; give another address or port") from error
