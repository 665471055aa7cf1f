"""What a gdb is told so that it attaches to the door: by `farcore gdb`, or by whoever types it."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Final

from farcore_client.doors.gdb import description
from farcore_client.errors import MissingToolError
from farcore_client.target import Target

# Seconds for which gdb waits for an answer, two by default: a server that has to come back first is slow, and not lost.
PATIENCE: Final = 120
# What a gdb that knows only this machine can read as well.
_ALSO: Final = {"x86_64": ("i386",)}


def setup(target: Target, place: str, vmlinux: str = "VMLINUX") -> list[str]:
    """The lines that make a gdb see the dump through the door at ``place``; symbols where KASLR has put the kernel."""
    big = ["set endian big"] if target.elf.header.data == "BE" else []
    return [*big, f"set remotetimeout {PATIENCE}", load_line(target, vmlinux), f"target remote {place}"]


def load_line(target: Target, vmlinux: str = "VMLINUX") -> str:
    """The line that loads the kernel's symbols; every section is moved, which qOffsets and gdb 13 do not do."""
    offset = target.vmcoreinfo.kernel_offset if target.vmcoreinfo else None
    return f"symbol-file {vmlinux}" + (f" -o {offset:#x}" if offset else "")


def script(target: Target, place: str, vmlinux: Path | None) -> str:
    """The same for a gdb that is started: without questions about killing what is dead, and with no word but the frame's."""
    *before, load, attach = setup(target, place, f'"{vmlinux}"')
    # gdb warns that it has no program; had it one, it would show vmlinux's memory where the dump's cannot be read.
    quiet = f"pipe {attach} | cat >/dev/null"
    return "\n".join(
        ["set confirm off", "set print inferior-events off", *before, *([load] if vmlinux else []), quiet, "frame", ""]
    )


def program(target: Target, host: str = platform.machine()) -> str:
    """The path of a gdb for the dump's machine; MissingToolError says what to install."""
    machine = description.machine(target)
    names = ["gdb", "gdb-multiarch"] if machine in (host, *_ALSO.get(host, ())) else ["gdb-multiarch"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise MissingToolError(f"there is no {names[0]} on this machine, which reads a dump of {machine}: apt install {names[0]}")
