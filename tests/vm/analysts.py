"""The programs that read dumps: two versions of crash, each with the libraries of its own release, and drgn."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from .outdir import OutDir, say
from .packages import Apt, install, run

LATER = "trixie"  # its crash (8.0.6) lists every task of a 6.1 kernel; bookworm's (8.0.2) only a few
LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib", "lib64", "usr/lib64")
DRGN = "0.3.0"


def crash(out: OutDir, release: str = "") -> Path:
    """A script that runs Debian's crash of a release: OUT/crash-VERSION/crash."""
    apt = Apt(out, "amd64", release)
    debs = apt.download("crash")
    version = next(d.name.split("_")[1].split("-")[0] for d in debs if d.name.startswith("crash_"))
    home = out.path / f"crash-{version}"
    script = home / "crash"
    if not script.exists():
        root = apt.unpack(*debs, into=home / "root")
        loader = next(p for d in LIBRARIES if (p := root / d / LOADER).exists()).relative_to(home)
        path = ":".join(f"$here/root/{d}" for d in LIBRARIES)
        script.write_text(
            "#!/bin/sh\n# Debian's crash, started by the dynamic loader of its own release.\n"
            'here=$(dirname "$(readlink -f "$0")")\n'
            f'exec "$here/{loader}" --library-path "{path}" "$here/root/usr/bin/crash" "$@"\n'
        )
        script.chmod(0o755)
    shown = run(out, "crash", script, "--version").split()
    say(f"{script.relative_to(out.path)}: {' '.join(shown[:2])}")
    return script


def crashes(out: OutDir) -> list[Path]:
    """The crash of this release and the later one."""
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
