"""The vmlinux, with DWARF, of a guest's kernel."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from functools import partial
from pathlib import Path

from .guests import AMD64, AMD64_LATER, ARM64, I386, Guest, kernel
from .outdir import OutDir
from .packages import Apt, need, run

NAMES = {AMD64: "vmlinux-x86_64", AMD64_LATER: "vmlinux-x86_64-later", I386: "vmlinux-i386", ARM64: "vmlinux-aarch64"}


def vmlinux(out: OutDir, guest: Guest) -> Path:
    """OUT/vmlinux-ARCH of the very kernel that the dumps are of; about 300 MB of download."""
    return out.once(NAMES[guest], partial(_vmlinux, out, guest))


def _vmlinux(out: OutDir, guest: Guest, part: Path) -> None:
    release = kernel(out, guest).release
    package = Apt(out, guest.architecture, guest.release).deb(f"linux-image-{release}-dbg")
    _member(package, f"/usr/lib/debug/boot/vmlinux-{release}", part)
    if guest.architecture == "amd64":  # relocations of the debug sections, applied long ago: a third of the file
        need(out, "objcopy")
        run(out, "objcopy", "objcopy", "--remove-section=.rela*", part)


def _member(deb: Path, name: str, to: Path) -> None:
    """One file of a package, read no further than its end."""
    argv = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as dpkg,
        tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive,
    ):
        for member in archive:
            body = archive.extractfile(member) if member.name == f".{name}" and member.isfile() else None
            if body:
                with to.open("wb") as out:
                    shutil.copyfileobj(body, out, 1 << 20)
                dpkg.kill()
                return
    raise SystemExit(f"{deb.name} has no {name}")
