"""Analysis: one crash on this terminal, on a dump that is being opened, through whichever door can be had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from farcore.elf import PN_XNUM
from farcore_client import vmlinux
from farcore_client.child import child, status, tidily
from farcore_client.doors.crash import launch
from farcore_client.doors.mount import MountError, mounted
from farcore_client.lessons import ALL_OF_MEMMAP, learning
from farcore_client.notice import notice
from farcore_client.opening import Opening
from farcore_client.remote import RemoteDump, opened
from farcore_client.target import Target

# KiB that the kernel reads ahead of crash: what the kernel reads and crash does not is fetched, and learned, for nothing.
READ_AHEAD: Final = 16


def run(opening: Opening, symbols: Path | None, door: str | None, options: Sequence[str]) -> int:
    """crash's exit status. ``door``: "fuse" or "remote", None for the first that can be had."""
    with tidily(), opened(opening) as dump:
        target = dump.target()
        program = launch.program(target)
        found = str(vmlinux.find(target.vmcoreinfo, symbols))
        return _ran_through(dump, target, door, [program, *options], found)


def _ran_through(dump: RemoteDump, target: Target, door: str | None, start: Sequence[str], symbols: str) -> int:
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
    return _ran_at_a_door(dump, target, start, symbols)


def _ran_at_a_door(dump: RemoteDump, target: Target, start: Sequence[str], symbols: str) -> int:
    # Late: a mount, and who waits for it, needs none of this.
    from farcore_client.doors.crash import stops
    from farcore_client.doors.crash.door import CrashDoor
    from farcore_client.doors.listener import LOOPBACK

    crashes = CrashDoor(target, stops.of(target, Path(symbols)), notice)
    with crashes.listener.listening(LOOPBACK, 0) as port, learning(dump, target, Path(symbols), enough=ALL_OF_MEMMAP):
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
    with TemporaryDirectory(prefix="farcore-") as folder, mounted(dump, Path(folder), notice, read_ahead=READ_AHEAD):
        yield Path(folder, name)


def _ran(argv: Sequence[str]) -> int:
    """Run crash on this terminal; its exit status."""
    with child(argv) as crash:
        pass
    return status(crash)
