"""farcore door: only the door, for a tool that is started by hand."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

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
from farcore_client.doors.listener import Listener
from farcore_client.dumpurl import DumpUrl
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
@click.argument("symbols", metavar="[VMLINUX]", required=False, type=click.Path(path_type=Path))
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
def command(
    tool: str, url: str, symbols: Path | None, place: tuple[str, int], cache: CacheDir | None, credentials: Credentials
) -> None:
    """Open a door to a dump, for a tool that is started by hand, until Ctrl-C.

    It speaks gdb's remote protocol or crash's, and prints what is to be typed. With the VMLINUX the door knows where each CPU
    stopped (crash; without one it is looked for in /usr/lib/debug), and which panicked (gdb).
    """
    with connect(DumpUrl.parse(url), credentials, cache=cache) as dump:
        (_serve_crash if tool == "crash" else _serve_gdb)(dump.target(), symbols, *place)


def _serve_crash(target: Target, given: Path | None, host: str, port: int) -> None:
    # A dump that no crash reads is refused before a vmlinux is looked for.
    crashes = CrashDoor(target, stops.of(target, None), notice)
    try:
        found = vmlinux.find(target.vmcoreinfo, given)
    except VmlinuxError as error:
        if given is not None:
            raise
        found = None
        notice(f"{error}; until then backtraces of running tasks begin where NT_PRSTATUS says")
    crashes.stop = stops.of(target, found)

    def lines(place: str) -> list[str]:
        return [f"crash {shlex.join(crash_launch.remote(target, place, str(found or 'VMLINUX')))}"]

    _serve(crashes.listener, host, port, lines)


def _serve_gdb(target: Target, given: Path | None, host: str, port: int) -> None:
    found = vmlinux.find(target.vmcoreinfo, given).resolve() if given else None
    lines = partial(launch.setup, target, vmlinux=f'"{found}"' if found else "VMLINUX")
    _serve(GdbDoor(target, notice, found).listener, host, port, lines)


def _serve(listener: Listener, host: str, port: int, lines: Callable[[str], list[str]]) -> None:
    """Say what is to be typed, and serve until the dump is another."""
    with _as_setting(host, port), listener.listening(host, port) as chosen:
        place = f"[{host}]:{chosen}" if ":" in host else f"{host}:{chosen}"
        say(f"The door is open on {place} until Ctrl-C. To be typed:\n")
        for line in lines(place):
            say(f"    {line}")
        while not listener.changed.wait(1):
            pass
    raise click.ClickException("the dump is another by now: open the door again")


@contextmanager
def _as_setting(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except FarcoreError:
        raise
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while ")[0]  # where Python says the address once more
        raise SettingsError(f"--listen {host}:{port}: {why}; give another address or port") from error
