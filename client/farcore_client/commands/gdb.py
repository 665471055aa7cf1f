"""farcore gdb: gdb on a dump that stays where it is."""

from __future__ import annotations

import os
from pathlib import Path

import click

from farcore_client import vmlinux
from farcore_client.cachedir import CacheDir
from farcore_client.child import child, status, tidily
from farcore_client.commands import with_cache, with_credentials
from farcore_client.credentials import Credentials
from farcore_client.doors.gdb import launch
from farcore_client.doors.gdb.door import GdbDoor
from farcore_client.doors.listener import LOOPBACK
from farcore_client.dumpurl import DumpUrl
from farcore_client.lessons import learning
from farcore_client.notice import notice
from farcore_client.passing import Passing, passed_on
from farcore_client.remote import connect
from farcore_client.target import Target


@click.command(
    cls=Passing,
    epilog="\b\nExamples: farcore gdb http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d\n"
    "          farcore gdb http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d vmlinux -- -batch -ex 'info threads' -ex bt",
)
@click.argument("url", metavar="DUMPURL")
@click.argument("symbols", metavar="[VMLINUX]", required=False, type=click.Path(path_type=Path))
@with_cache
@with_credentials
def command(url: str, symbols: Path | None, cache: CacheDir | None, credentials: Credentials) -> int:
    """Debug a dump with gdb: CPUs are threads, the panicking one first, and addresses the kernel's own.

    Without VMLINUX it is looked for in /usr/lib/debug, then asked of debuginfod. The exit status is gdb's.
    """
    options = passed_on()
    with tidily(), connect(DumpUrl.parse(url), credentials, cache=cache) as dump:
        target = dump.target()
        program = launch.program(target)
        found = vmlinux.find(target.vmcoreinfo, symbols)
        with learning(dump, target, found):
            return _ran(target, program, found.resolve(), options)


def _ran(target: Target, program: str, symbols: Path, options: list[str]) -> int:
    """Run gdb on this terminal; its exit status."""
    door = GdbDoor(target, notice, symbols)
    with door.listener.listening(LOOPBACK, 0) as port:
        # Held by descriptors alone: whatever ends this, no file stays behind.
        script = os.memfd_create("farcore-gdb")
        os.write(script, launch.script(target, f"{LOOPBACK}:{port}", symbols).encode())
        with child([program, "-q", "-x", f"/dev/fd/{script}", *options], fds=[script]) as gdb:
            os.close(script)
        return status(gdb)
