"""The small dumps of tests/data: cut from the large ones, proved with real programs, compressed. Made in OUT/data."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

from . import bare, coreelf, kdump, live, sessions, symbols
from .coreelf import PAGE, Core
from .cut import Pages, cut, frames
from .guests import AMD64, ARM64
from .outdir import OutDir, say
from .packages import need, run
from .sessions import Session
from .touched import touched

GAP = 4  # pages; with none, three times the PT_LOADs for 0.2 MB less
BARE = ("aarch64", "arm", "i386-microvm", "ppc", "riscv32", "riscv64", "s390x")  # those that compress to a few kB
MARKS = (b"Linux version ", b"vmcore-marker: ")
AROUND = 8  # pages


def make(out: OutDir) -> None:
    """All of them."""
    need(out, "readelf", "strace", "zstd")
    for cut_one in (x86_64, aarch64, i386, s390x, bare.make):
        cut_one(out)
    for name in BARE:
        _compress(out, f"bare-{name}.elf", out.path / "bare" / f"{name}.elf")


def x86_64(out: OutDir) -> None:
    """The kdump that crash and drgn open: what their sessions read, and what the kernel keeps nearby."""
    whole, vmlinux = kdump.make(out, kdump.NATIVE), symbols.vmlinux(out, AMD64)
    core = coreelf.read(whole)
    regions = _listed(sessions.drgn(out, vmlinux, "regions.py").shows(whole))
    _proved(out, core, sessions.x86_64(out, vmlinux, core), regions, "x86_64-panic.elf")


def aarch64(out: OutDir) -> None:
    """The kdump of an arm64 kernel, for drgn."""
    whole, vmlinux = kdump.make(out, kdump.ON_ARM64), symbols.vmlinux(out, ARM64)
    core = coreelf.read(whole)
    todo = [
        sessions.drgn(out, vmlinux, "tour.py"),
        sessions.vmcore_dmesg(out),
        sessions.registers(out, "aarch64"),
    ]
    _proved(out, core, todo, _symbols(core), "aarch64-panic.elf")


def i386(out: OutDir) -> None:
    """The kdump of an i386 kernel, ELF32: its log, and the pages that VMCOREINFO's symbols lie in."""
    core = coreelf.read(kdump.make(out, kdump.ON_I386))
    todo = [sessions.vmcore_dmesg(out), sessions.registers(out, "i386")]
    _proved(out, core, todo, _symbols(core), "i386-panic.elf")


def s390x(out: OutDir) -> None:
    """Big endian: lowcore and what surrounds MARKS, of a dump of QEMU (no VMCOREINFO: s390x has no fw_cfg)."""
    live.make(out, live.S390)
    core = coreelf.read(out.path / "qemu-s390x.elf")
    _proved(out, core, [sessions.registers(out, "s390:64-bit")], {0, 1} | set(_around(core)), "s390x-idle.elf")


def _proved(out: OutDir, core: Core, todo: list[Session], more: Pages, name: str) -> None:
    """The pages that sessions read and `more`, cut; the sessions show the same on the cut; compressed."""
    part = out.scratch(name)
    if not (out.path / "data" / f"{name}.zst").exists():
        _cut(core, _touched(out, core, todo) | more | _short(core), part)
        sessions.prove(todo, core.path, part)
    _compress(out, name, part)


def _cut(core: Core, keep: Pages, to: Path) -> None:
    """The cut; readelf must find nothing odd in it."""
    loads = cut(core.path, keep, GAP, to)
    shown = subprocess.run(["readelf", "-hlnW", to], capture_output=True, text=True)
    if shown.returncode or shown.stderr:
        raise SystemExit(f"readelf of {to}: {shown.stderr}")
    say(f"{to.name}: {len(keep)} pages asked for, {len(loads)} PT_LOADs, {to.stat().st_size:,} bytes")


def _touched(out: OutDir, core: Core, todo: Iterable[Session]) -> Pages:
    """The pages that sessions read."""
    every: Pages = set()
    for session in todo:
        reads, _ = touched(session.on(core.path), session.commands, core.path, out.scratch("strace"))
        pages = frames(core, reads)
        say(f"{session.name}: {len(reads)} reads of {len(pages)} pages")
        every |= pages
    return every


def _listed(regions: str) -> Pages:
    """The pages of scripts/regions.py."""
    every: Pages = set()
    for line in regions.splitlines():
        _, paddr, length = line.split()
        start = int(paddr, 16)
        every |= set(range(start // PAGE, -(-(start + int(length, 16)) // PAGE)))
    return every


def _short(core: Core) -> Pages:
    """The pages that a PT_LOAD ends in the midst of: rare, and easily got wrong."""
    ends = (load.paddr + load.filesz for load in core.loads)
    return {end // PAGE for end in ends if end % PAGE}


def _symbols(core: Core) -> Pages:
    """The pages of VMCOREINFO's SYMBOL(...) addresses that a PT_LOAD describes."""
    named = [int(v, 16) for k, v in coreelf.vmcoreinfo(core).items() if k.startswith("SYMBOL(")]
    return {
        (at - load.vaddr + load.paddr) // PAGE
        for at in named
        for load in core.loads
        if load.vaddr <= at < load.vaddr + load.filesz
    }


def _around(core: Core) -> Iterable[int]:
    """The pages within AROUND of one of MARKS."""
    for load in core.loads:
        body = core.read(load.offset, load.filesz)
        for mark in MARKS:
            at = body.find(mark)
            while at >= 0:
                page = (load.paddr + at) // PAGE
                yield from range(max(page - AROUND, 0), page + AROUND + 1)
                at = body.find(mark, at + 1)


def _compress(out: OutDir, name: str, source: Path) -> None:
    """OUT/data/NAME.zst. Repeated pages lie far apart, hence --long."""

    def zstd(part: Path) -> None:
        run(out, "zstd", "zstd", "-q", "--ultra", "-22", "--long=27", "-f", "-o", part, source)

    done = out.once(f"data/{name}.zst", zstd)
    if source.exists():
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        say(f"{name}: {done.stat().st_size:,} bytes, {source.stat().st_size:,} unpacked, sha256 {digest}")
