"""The programs that read dumps: two versions of crash and a later gdb, each with its own release's libraries, and drgn."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from .outdir import OutDir, say
from .packages import LATER, Apt, install, run

LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib", "lib64", "usr/lib64")
DRGN = "0.3.0"


def crash(out: OutDir, release: str = "") -> Path:
    """A script that runs Debian's crash of a release: OUT/crash-VERSION/crash."""
    return _unpacked(out, release, "crash")


def gdb(out: OutDir) -> Path:
    """The same for the later release's gdb, with its own Python: OUT/gdb-VERSION/gdb."""
    own = 'PYTHONHOME="$here/root/usr" exec', ' --data-directory="$here/root/usr/share/gdb"'
    return _unpacked(out, LATER, "gdb", *own)


def _unpacked(out: OutDir, release: str, name: str, run_by: str = "exec", options: str = "") -> Path:
    apt = Apt(out, "amd64", release)
    debs = apt.download(name)
    version = next(d.name.split("_")[1].split("-")[0] for d in debs if d.name.startswith(f"{name}_"))
    home = out.path / f"{name}-{version}"
    script = home / name
    if not script.exists():
        root = apt.unpack(*debs, into=home / "root")
        loader = next(p for d in LIBRARIES if (p := root / d / LOADER).exists()).relative_to(home)
        path = ":".join(f"$here/root/{d}" for d in LIBRARIES)
        script.write_text(
            f"#!/bin/sh\n# Debian's {name}, started by the dynamic loader of its own release.\n"
            'here=$(dirname "$(readlink -f "$0")")\n'
            f'{run_by} "$here/{loader}" --library-path "{path}" "$here/root/usr/bin/{name}"{options} "$@"\n'
        )
        script.chmod(0o755)
    shown = run(out, name, script, "--version").split()
    say(f"{script.relative_to(out.path)}: {' '.join(shown[:2])}")
    return script


def crashes(out: OutDir) -> list[Path]:
    """The crash of this release and the later one, which lists every task of a 6.1 kernel; bookworm's (8.0.2) only a few."""
    return [crash(out), crash(out, LATER)]


def drgn(out: OutDir) -> Path:
    """drgn from PyPI in an environment of its own: OUT/drgn/bin/drgn."""
    home = out.path / "drgn"
    if not (home / "bin" / "drgn").exists():
        if find_spec("ensurepip") is None:
            install(out, "python3-venv")
        run(out, "drgn", sys.executable, "-m", "venv", home)
        run(out, "drgn", home / "bin" / "python", "-m", "pip", "install", "-q", f"drgn=={DRGN}")
    say(f"drgn/bin/drgn: {DRGN}")
    return home / "bin" / "drgn"
