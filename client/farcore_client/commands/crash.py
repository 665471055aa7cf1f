"""farcore crash: crash on a dump that stays where it is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click

from farcore.elf import PN_XNUM
from farcore_client import vmlinux
from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.doors.crash import launch, stops
from farcore_client.doors.crash.door import CrashDoor
from farcore_client.doors.mount import MountError, mounted
from farcore_client.dumpurl import DumpUrl
from farcore_client.lessons import ALL_OF_MEMMAP, learning
from farcore_client.loop import run
from farcore_client.notice import notice
from farcore_client.passing import Passing, passed_on
from farcore_client.remote import RemoteDump, connect
from farcore_client.target import Target

LOOPBACK: Final = "127.0.0.1"


@click.command(
    cls=Passing,
    epilog="\b\nExamples: farcore crash http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d\n"
    "          farcore crash http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d vmlinux -- -s -i commands",
    options_metavar="[OPTIONS] [-- CRASH OPTIONS]",
)
@click.argument("url", metavar="DUMPURL")
@click.argument("symbols", metavar="[VMLINUX]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--door", type=click.Choice(["fuse", "remote"]), help="How crash reads the dump; by default fuse where that can be had."
)
@with_credentials
def command(url: str, symbols: Path | None, door: str | None, credentials: Credentials) -> int:
    """Analyse a dump with crash, which reads only what it needs.

    Without VMLINUX it is looked for in /usr/lib/debug, then asked of debuginfod. The dump is mounted where /dev/fuse can be
    used; else crash reads it through its own remote protocol. The exit status is crash's.
    """
    options = passed_on()
    with connect(DumpUrl.parse(url), credentials) as dump:
        target = dump.target()
        program = launch.program(target)
        found = str(run(vmlinux.find(target.vmcoreinfo, symbols)))
        return _opened(dump, target, door, [program, *options], found)


def _opened(dump: RemoteDump, target: Target, door: str | None, start: Sequence[str], symbols: str) -> int:
    name = _name(dump, target)
    if name and door != "remote":
        learns = learning(dump, target, Path(symbols), space="vmcore", enough=ALL_OF_MEMMAP)
        try:
            with _mounted(dump, name) as path, learns if name == "vmcore" else nullcontext():
                notice(f"crash reads the dump through FUSE, as {path}")
                return _ran([*start, symbols, str(path)])
        except MountError as error:
            if door == "fuse":
                raise
            notice(f"no FUSE here ({error})")
    crashes = CrashDoor(target, stops.of(target, Path(symbols)), notice)
    with crashes.listening(LOOPBACK, 0) as port, learning(dump, target, Path(symbols), enough=ALL_OF_MEMMAP):
        notice(f"crash reads the dump through its remote protocol, at {LOOPBACK}:{port}")
        return _ran([*start, *launch.remote(target, f"{LOOPBACK}:{port}", symbols)])


def _name(dump: RemoteDump, target: Target) -> str | None:
    """Which file of a mount crash takes: its count of program headers has 16 bits, and the form that is stored has none.

    None where it takes none.
    """
    if target.elf.count < PN_XNUM:
        return "vmcore"
    return "stored" if dump.dump.text("stored_format") == "kdump-compressed" else None


@contextmanager
def _mounted(dump: RemoteDump, name: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="farcore-") as folder, mounted(dump, Path(folder), notice):
        yield Path(folder, name)


def _ran(argv: Sequence[str]) -> int:
    """Run crash on this terminal; its exit status, as a shell has it."""
    with subprocess.Popen(argv) as crash, _signals(crash):
        status = crash.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _signals(crash: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, frame: Any) -> None:
        crash.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    # Ctrl-C is crash's own affair, which is in the same process group.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
