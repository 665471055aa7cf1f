"""farcore door: only the door, for a tool that is started by hand."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import click

from farcore.errors import FarcoreError, SettingsError
from farcore_client import vmlinux
from farcore_client.cachedir import CacheDir
from farcore_client.commands import with_cache, with_credentials
from farcore_client.credentials import Credentials
from farcore_client.doors.crash import launch as crash_launch
from farcore_client.doors.crash import stops
from farcore_client.doors.crash.door import CrashDoor
from farcore_client.doors.gdb import launch
from farcore_client.doors.gdb.door import GdbDoor
from farcore_client.dumpurl import DumpUrl
from farcore_client.loop import run
from farcore_client.notice import notice
from farcore_client.output import say
from farcore_client.remote import connect
from farcore_client.target import Target
from farcore_client.vmlinux import VmlinuxError


def _listen(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:1234", ctx, param)
    return host.strip("[]"), int(port)


@click.command(epilog="\b\nExample: farcore door gdb http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d")
@click.argument("tool", metavar="crash|gdb", type=click.Choice(["crash", "gdb"]))
@click.argument("url", metavar="DUMPURL")
@click.option(
    "--listen",
    "place",
    callback=_listen,
    default="127.0.0.1:0",
    metavar="HOST:PORT",
    help="Where; port 0 is a free one. Whoever reaches it reads the dump. [127.0.0.1:0]",
)
@with_cache
@with_credentials
def command(tool: str, url: str, place: tuple[str, int], cache: CacheDir | None, credentials: Credentials) -> None:
    """Open a door to a dump, for a tool that is started by hand, until Ctrl-C.

    It speaks gdb's remote protocol or crash's, and prints what is to be typed.
    """
    with connect(DumpUrl.parse(url), credentials, cache=cache) as dump:
        if tool == "crash":
            _serve_crash(dump.target(), *place)
        else:
            run(_serve_gdb(dump.target(), *place))


def _serve_crash(target: Target, host: str, port: int) -> None:
    try:
        symbols = vmlinux.find(target.vmcoreinfo, None)
    except VmlinuxError as error:
        symbols = None
        notice(f"{error}; until then backtraces of running tasks begin where NT_PRSTATUS says")
    crashes = CrashDoor(target, stops.of(target, symbols), notice)
    with _as_setting(host, port), crashes.listening(host, port) as chosen:
        words = crash_launch.remote(target, _shown(host, chosen), str(symbols or "VMLINUX"))
        say(f"The door is open on {_shown(host, chosen)} until Ctrl-C. To be typed:\n")
        say(f"    crash {shlex.join(words)}")
        while not crashes.changed.wait(1):
            pass
    raise click.ClickException("the dump is another by now: open the door again")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def _as_setting(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except FarcoreError:
        raise
    except OSError as error:
        raise SettingsError(f"--listen {host}:{port}: {error.strerror or error}; give another address or port") from error


async def _serve_gdb(target: Target, host: str, port: int) -> None:
    door = GdbDoor(target, notice)
    with _as_setting(host, port):
        async with door.listening(host, port) as chosen:
            say(f"The door is open on {_shown(host, chosen)} until Ctrl-C. In gdb:\n")
            for line in launch.setup(target, _shown(host, chosen)):
                say(f"    {line}")
            await asyncio.Event().wait()
