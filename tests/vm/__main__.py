"""make-dumps: real Linux vmcores from nothing but a Debian 12 machine with apt and pip; no KVM, no network in a guest."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import analysts, bare, filtered, fixtures, kdump, live, symbols
from .guests import AMD64, AMD64_LATER, ARM64, I386, kernel
from .outdir import OutDir, say

TARGETS: dict[str, tuple[str, Callable[[OutDir], object]]] = {
    "panic": ("QEMU's ELF of a panicked x86_64 guest", partial(live.make, what=live.PANIC)),
    "later": ("the same of a 6.12 kernel with five levels of page tables", partial(live.make, what=live.LATER)),
    "large": ("the same, of 2 GiB of memory", partial(live.make, what=live.LARGE)),
    "nokaslr": ("the same without KASLR", partial(live.make, what=live.NOKASLR)),
    "idle": ("QEMU's ELF, paging ELF, flat and seekable kdump of an idle x86_64 guest", live.idle),
    "kdump": ("a real kdump through kexec, x86_64", partial(kdump.make, what=kdump.NATIVE)),
    "cross": ("the same crash exported by an i386 crash kernel: ELF64", partial(kdump.make, what=kdump.VIA_I386)),
    "kdump-i386": ("an i386 kernel's kdump: ELF32", partial(kdump.make, what=kdump.ON_I386)),
    "kdump-i386-elf64": ("the same with ELF64 headers", partial(kdump.make, what=kdump.ON_I386_WIDE)),
    "kdump-aarch64": ("an arm64 kernel's kdump", partial(kdump.make, what=kdump.ON_ARM64)),
    "filtered": ("makedumpfile's forms: raw, zlib, LZO, ELF, flattened, split", filtered.make),
    "xnum": ("more than 65,535 program headers (e_phnum 0xffff)", live.xnum),
    "aarch64": ("QEMU's ELF of an arm64 guest", partial(live.make, what=live.AARCH64)),
    "s390x": ("QEMU's ELF of an s390x guest: big endian", partial(live.make, what=live.S390)),
    "bare": ("machines without a kernel: ELF32 and ELF64, both byte orders", bare.make),
    "vmlinux": ("vmlinux with DWARF for the x86_64 dumps (300 MB)", partial(symbols.vmlinux, guest=AMD64)),
    "vmlinux-later": ("vmlinux with DWARF for later (400 MB)", partial(symbols.vmlinux, guest=AMD64_LATER)),
    "vmlinux-i386": ("vmlinux with DWARF for kdump-i386", partial(symbols.vmlinux, guest=I386)),
    "vmlinux-aarch64": ("vmlinux with DWARF for the aarch64 dumps", partial(symbols.vmlinux, guest=ARM64)),
    "crash": ("crash 8.0.2 and 8.0.6, runnable where they are", analysts.crashes),
    "gdb": ("gdb 16, likewise", analysts.gdb),
    "drgn": ("drgn in an environment of its own", analysts.drgn),
    "data": ("what tests/data holds: small cuts, proved with the tools above", fixtures.make),
}


def arguments() -> argparse.Namespace:
    """The command line."""
    listing = "\n".join(f"  {name:16} {what}" for name, (what, _) in TARGETS.items())
    notes = "A file that exists is not made again. DIR/cache keeps packages, logs (log/) and the choice of kernels."
    parser = argparse.ArgumentParser(
        prog="make-dumps",
        description=__doc__,
        epilog=f"targets:\n{listing}\n  {'all':16} every one of them\n\n{notes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", dest="folder", metavar="DIR", type=Path, default=Path("dumps"), help="default: dumps")
    parser.add_argument("-k", dest="kernel", metavar="RELEASE", help="amd64 kernel, as uname -r says; default: the newest")
    parser.add_argument("targets", metavar="TARGET", nargs="+", choices=[*TARGETS, "all"], help="see below")
    return parser.parse_args()


def main() -> None:
    """Makes the targets in the order of the table."""
    given = arguments()
    out = OutDir(given.folder.resolve())
    if given.kernel:
        kernel(out, AMD64, given.kernel)
    for name, (_, make) in TARGETS.items():
        if name in given.targets or "all" in given.targets:
            make(out)
    size = sum(p.stat().st_blocks * 512 for p in out.path.rglob("*") if p.is_file() and not p.is_symlink())
    say(f"done: {size >> 20} MiB in {out.path}, {shutil.disk_usage(out.path).free >> 20} MiB free there")


if __name__ == "__main__":
    main()
