"""What makedumpfile makes of dumps: compressed, filtered, flattened, split."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from . import coreelf, kdump, live
from .outdir import OutDir
from .packages import need, run

# Debian's makedumpfile has neither snappy nor zstd: -p and -z silently store raw pages.
FORMS = {
    "makedumpfile-raw-d31.kdump": "-d 31",
    "makedumpfile-lzo-d31.kdump": "-l -d 31",
    "makedumpfile-zlib-d1.kdump": "-c -d 1",
    "makedumpfile-zlib-d31.kdump": "-c -d 31",
    "makedumpfile-d31.elf": "-E -d 31",
    "makedumpfile-zlib-d31-flat.kdump": "-c -d 31 -F",
    "makedumpfile-d31-flat.elf": "-E -d 31 -F",
}


def make(out: OutDir) -> None:
    """Every form of QEMU's panicked dump, and of a real kdump the usual one, whole and split in two."""
    need(out, "makedumpfile")
    live.make(out, live.PANIC)
    source = out.scratch("qemu-x86_64-panic-normalised.elf")
    for name, options in FORMS.items():
        if not (out.path / name).exists() and not source.exists():
            normalise(out.path / "qemu-x86_64-panic.elf", source)
        out.once(name, partial(_makedumpfile, out, options.split(), source))
    vmcore = kdump.make(out, kdump.NATIVE)
    out.once("makedumpfile-kdump-lzo-d31.kdump", partial(_makedumpfile, out, ["-l", "-d", "31"], vmcore))
    _split(out, vmcore)


def normalise(source: Path, to: Path) -> None:
    """A copy in the kernel's layout. makedumpfile looks for program headers at byte 64; QEMU 7.2 puts them at 192."""
    core = coreelf.read(source)
    coreelf.write(to, core, core.loads, core.notes())


def _makedumpfile(out: OutDir, options: list[str], source: Path, part: Path) -> None:
    if "-F" in options:
        run(out, "makedumpfile", "sh", "-c", 'out=$1; shift; makedumpfile "$@" >"$out"', "sh", part, *options, source)
    else:
        run(out, "makedumpfile", "makedumpfile", *options, source, part)


def _split(out: OutDir, vmcore: Path) -> None:
    """Two files that crash opens together."""
    names = [f"makedumpfile-kdump-zlib-d31.split{n}.kdump" for n in (1, 2)]
    parts = [out.scratch(name) for name in names]
    if not all((out.path / name).exists() for name in names):
        for part in parts:
            part.unlink(missing_ok=True)
        run(out, "makedumpfile", "makedumpfile", "--split", "-c", "-d", "31", vmcore, *parts)
    for name, split in zip(names, parts, strict=True):
        out.once(name, split.rename)
